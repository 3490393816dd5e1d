package usage

import (
	"errors"
	"strings"
	"testing"
	"time"

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

// Nodes do not flush together: half of each pause is jitter.
func TestFlush_PausesHaveJitter(t *testing.T) {
	for name, c := range map[string]struct{ configured, pause time.Duration }{
		"default": {0, 2 * time.Second}, "configured": {time.Minute, time.Minute},
	} {
		m := &Meter{config: Config{Flush: c.configured}}
		const samples = 50
		seen := map[time.Duration]bool{}
		for range samples {
			pause := m.flushPause()
			seen[pause] = true
			if pause < c.pause/2 || pause > c.pause*3/2 {
				t.Errorf("%s: pause of %v, want %v ± 50 %%", name, pause, c.pause)
			}
		}
		if len(seen) < samples/2 {
			t.Errorf("%s: %d different pauses of %d", name, len(seen), samples)
		}
	}
}
