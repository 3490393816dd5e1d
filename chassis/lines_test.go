package chassis_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/chassis"
	"github.com/rs/zerolog"
)

// written takes writes, each as a whole.
type written chan string

func (w written) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestLinesAreWrittenTogether(t *testing.T) {
	writes := make(written, 8)
	lines := chassis.NewLines(writes)
	log := zerolog.New(lines)

	log.Info().Msg("first")
	log.Info().Msg("second")
	log.Error().Msg("third")
	if got, want := <-writes, "{\"level\":\"info\",\"message\":\"first\"}\n{\"level\":\"info\",\"message\":\"second\"}\n{\"level\":\"error\",\"message\":\"third\"}\n"; got != want {
		t.Errorf("an error was written with %q, want %q", got, want)
	}

	log.Info().Msg("alone")
	if got := <-writes; !strings.Contains(got, "alone") {
		t.Errorf("a line that waited is %q", got)
	}

	long := strings.Repeat("x", 20<<10)
	log.Info().Msg(long)
	if got := <-writes; !strings.Contains(got, long) {
		t.Error("a long line was not written at once")
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
