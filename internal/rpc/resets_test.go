package rpc

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

func TestResets_ClientThatResetsMostCallsLosesItsConnection(t *testing.T) {
	const (
		answered = iota
		late     // the deadline has passed
		left     // reset after a while
		reset    // reset immediately
	)
	repeat := func(n int, calls ...int) (all []int) {
		for range n {
			all = append(all, calls...)
		}
		return all
	}
	for name, tc := range map[string]struct {
		calls []int
		lost  bool
	}{
		"at the limit of open streams":          {repeat(10, reset), true},
		"one below the limit":                   {repeat(9, reset), false},
		"completed calls do not save for later": {append(repeat(100, answered), repeat(10, reset)...), true},
		"every second stream":                   {repeat(100, answered, reset), false},
		"two of three":                          {repeat(10, answered, reset, reset), true},
		"late calls":                            {repeat(100, late, reset), false},
		"search while typing":                   {append(repeat(9, reset), repeat(20, answered, reset)...), false},
		"abandoned page":                        {repeat(100, left), false},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			defer ours.Close()
			closed := prometheus.NewCounter(prometheus.CounterOpts{Name: "closed"})
			r := (&resetLimit{most: 10, closed: closed, log: zerolog.Nop()}).of(ours)

			gone, leave := context.WithCancel(t.Context())
			leave()
			passed, cancel := context.WithDeadline(t.Context(), time.Now())
			defer cancel()
			for _, call := range tc.calls {
				switch call {
				case answered:
					r.ended(t.Context(), time.Now())
				case late:
					r.ended(passed, time.Now())
				case left:
					r.ended(gone, time.Now().Add(-prematureReset))
				case reset:
					r.ended(gone, time.Now())
				}
			}
			_ = ours.SetReadDeadline(time.Now())
			_, err := ours.Read(make([]byte, 1))
			if lost := !errors.Is(err, os.ErrDeadlineExceeded); lost != tc.lost {
				t.Errorf("the connection was lost: %v, want %v", lost, tc.lost)
			}
		})
	}
}
