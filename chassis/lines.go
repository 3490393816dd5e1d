package chassis

import (
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// linesTogether is the bytes of log that are written at once.
	linesTogether = 16 << 10
	// lineDelay is how long a line may wait for others.
	lineDelay = 50 * time.Millisecond
)

// Lines writes the lines of a log some at a time: one write for each call would be a
// system call for each. A warning or worse is written at once, with all that came
// before it; the rest waits at most 50 ms, which is what a process that is killed
// loses. Lines may be used concurrently, and blocks while its writer does.
type Lines struct {
	to io.Writer

	mu    sync.Mutex
	text  []byte
	timer *time.Timer // nil until there is a line
}

// NewLines returns lines that go to w. Flush ends them.
func NewLines(w io.Writer) *Lines { return &Lines{to: w, text: make([]byte, 0, linesTogether)} }

// Write implements [io.Writer], for lines without a level.
func (l *Lines) Write(line []byte) (int, error) { return l.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel implements [zerolog.LevelWriter]. An error is that of writing earlier
// lines, too.
func (l *Lines) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) == 0 {
		if l.timer == nil {
			l.timer = time.AfterFunc(lineDelay, func() { _ = l.Flush() }) // as zerolog, which has nobody to tell either
		} else {
			l.timer.Reset(lineDelay)
		}
	}
	l.text = append(l.text, line...)
	if len(l.text) < linesTogether && level < zerolog.WarnLevel {
		return len(line), nil
	}
	return len(line), l.flush()
}

// Flush writes what waits.
func (l *Lines) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flush()
}

// flush writes what waits. l.mu is held.
func (l *Lines) flush() error {
	if len(l.text) == 0 {
		return nil
	}
	l.timer.Stop()
	_, err := l.to.Write(l.text)
	l.text = l.text[:0]
	return err
}
