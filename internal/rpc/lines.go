package rpc

import (
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// linesTogether is the number of bytes of log that are written together.
	linesTogether = 64 << 10
	// linesWaiting is the bytes of log that may wait while others are written, beyond
	// which logging goroutines wait too.
	linesWaiting = 1 << 20
	// lineDelay is how long a line may be buffered.
	lineDelay = 50 * time.Millisecond
)

// Lines buffers the lines of a log and writes several of them with one system call. A line of level
// warn or above is written immediately, with the lines before it; others wait at most 50 ms, and
// are lost if the process is killed in that time. Lines may be used concurrently. A logging
// goroutine does not wait for a slow writer, such as a syncing disk, until 1 MiB is buffered.
type Lines struct {
	to io.Writer

	writing sync.Mutex // held while something is written, taken before mu
	spare   []byte     // what text becomes while writing is held

	mu    sync.Mutex
	text  []byte      // what waits
	timer *time.Timer // nil until there is a line
}

// NewLines returns lines that go to w. Flush ends them.
func NewLines(w io.Writer) *Lines { return &Lines{to: w} }

// Write implements [io.Writer], for lines without a level.
func (l *Lines) Write(line []byte) (int, error) { return l.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel implements [zerolog.LevelWriter]. An error is that of writing earlier
// lines, too.
func (l *Lines) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	waiting := l.add(line)
	switch {
	case level >= zerolog.WarnLevel, waiting >= linesWaiting:
		return len(line), l.Flush()
	case waiting >= linesTogether && l.writing.TryLock():
		defer l.writing.Unlock()
		return len(line), l.flush()
	}
	return len(line), nil
}

// add buffers a line, and returns the number of buffered bytes.
func (l *Lines) add(line []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) == 0 {
		if l.timer == nil {
			l.timer = time.AfterFunc(lineDelay, func() { _ = l.Flush() }) // as zerolog, which cannot report it either
		} else {
			l.timer.Reset(lineDelay)
		}
	}
	l.text = append(l.text, line...)
	return len(l.text)
}

// Flush writes the buffered lines.
func (l *Lines) Flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.flush()
}

// flush writes the buffered lines. l.writing is held.
func (l *Lines) flush() error {
	l.mu.Lock()
	text := l.text
	if len(text) > 0 {
		l.timer.Stop()
		l.text = l.spare[:0]
	}
	l.mu.Unlock()
	if len(text) == 0 {
		return nil
	}
	_, err := l.to.Write(text)
	if l.spare = text; cap(text) > 2*linesTogether {
		l.spare = nil // a buffer of this size is rarely needed
	}
	return err
}
