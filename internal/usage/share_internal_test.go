package usage

import (
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestOutage_IsLoggedOncePerChange(t *testing.T) {
	var text strings.Builder
	log, away := zerolog.New(&text), errors.New("nats: no servers")
	var o outage
	for n, step := range []struct {
		err   error
		lines int // after it
	}{
		{nil, 0}, {away, 1}, {away, 1}, {errors.New("nats: timeout"), 1}, {nil, 2}, {nil, 2}, {away, 3}, {nil, 4},
	} {
		o.log(log, step.err)
		if lines := strings.Count(text.String(), "\n"); lines != step.lines {
			t.Fatalf("after step %d there are %d lines, want %d:\n%s", n, lines, step.lines, text.String())
		}
	}
	if warnings := strings.Count(text.String(), `"level":"warn"`); warnings != 2 ||
		!strings.Contains(text.String(), away.Error()) {
		t.Errorf("%d warnings, want 2 with the cause:\n%s", warnings, text.String())
	}
}
