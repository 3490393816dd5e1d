package rpc_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/rpc"
)

// written takes writes, each as a whole.
type written chan string

func (w written) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestLines_AreWrittenTogether(t *testing.T) {
	writes := make(written, 8)
	lines := rpc.NewLines(writes)
	log := zerolog.New(lines)

	log.Info().Msg("first")
	log.Info().Msg("second")
	log.Error().Msg("third")
	if got, want := <-writes,
		"{\"level\":\"info\",\"message\":\"first\"}\n{\"level\":\"info\",\"message\":\"second\"}\n{\"level\":\"error\",\"message\":\"third\"}\n"; got != want {
		t.Errorf("an error was written with %q, want %q", got, want)
	}

	log.Info().Msg("alone")
	if got := <-writes; !strings.Contains(got, "alone") {
		t.Errorf("a line that waited is %q", got)
	}

	long := strings.Repeat("x", 80<<10)
	log.Info().Msg(long)
	if got := <-writes; !strings.Contains(got, long) {
		t.Error("a long line was not written immediately")
	}

	log.Info().Msg("last")
	if err := lines.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := <-writes; !strings.Contains(got, "last") {
		t.Errorf("flushed is %q", got)
	}
	if err := lines.Flush(); err != nil || len(writes) != 0 {
		t.Errorf("nothing was there to write, and yet there were %d writes: %v", len(writes), err)
	}
}

// stuck is a writer that waits, as a disk that syncs does.
type stuck struct {
	begun, release chan struct{}
	written        []byte
}

func (s *stuck) Write(p []byte) (int, error) {
	s.begun <- struct{}{}
	<-s.release
	s.written = append(s.written, p...)
	return len(p), nil
}

func TestLines_SlowWriterDoesNotBlockLogging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes, so no line is flushed by its delay
		to := &stuck{begun: make(chan struct{}, 64), release: make(chan struct{})}
		lines := rpc.NewLines(to)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		add := func(n int) {
			for range n {
				if _, err := lines.WriteLevel(zerolog.InfoLevel, line); err != nil {
					t.Error(err)
				}
			}
		}
		first, rest := make(chan struct{}), make(chan struct{})
		go func() { add(64); close(first) }()
		<-to.begun // the goroutine that filled the first 64 KiB writes them
		add(1023)  // the others continue, until 1 MiB waits
		go func() { add(1); close(rest) }()
		to.release <- struct{}{}
		<-first
		<-to.begun
		select {
		case <-rest:
			t.Error("more waits than may")
		default:
		}
		to.release <- struct{}{}
		<-rest
		if want := (64 + 1024) * len(line); len(to.written) != want {
			t.Errorf("%d bytes are written of %d", len(to.written), want)
		}
	})
}
