package h2

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

var errNoRoom = errors.New("there is no room")

// allowance is a meter with a bound.
type allowance struct{ used, most atomic.Int64 }

func allow(most int64) *allowance {
	a := &allowance{}
	a.most.Store(most)
	return a
}

func (a *allowance) Reserve(bytes int64) error {
	if a.used.Add(bytes) > a.most.Load() {
		a.used.Add(-bytes)
		return errNoRoom
	}
	return nil
}

func (a *allowance) Release(bytes int64) { a.used.Add(-bytes) }

func TestMeter_OnlyCallBeyondMemoryIsReset(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, echo(t), config())
		const size = 600 << 10
		narrow, wide := allow(1<<20), allow(64<<20)
		call := func(meter channels.Meter, length int) (stream, error) {
			t.Helper()
			stream, err := channel.Open(t.Context(), channels.Request{
				Path:       "/test/Echo",
				Message:    make([]byte, length),
				HasMessage: true,
				Last:       true,
				Whole:      true,
				Meter:      meter,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stream.Close)
			return stream, nil
		}
		first, _ := call(narrow, size)
		held, err := first.Receive(t.Context())
		if err != nil || held.Len() != size || narrow.used.Load() < size {
			t.Fatalf("%v; %d bytes are metered", err, narrow.used.Load())
		}
		// Another tenant's call is in flight on the same connection during the test.
		other, _ := call(wide, size)
		second, _ := call(narrow, size)
		if _, err := second.Receive(t.Context()); !errors.Is(err, errNoRoom) {
			t.Errorf("%v, want the meter's error", err)
		} else if _, ok := errors.AsType[*channels.MeterError](err); !ok {
			t.Errorf("%v, want a channels.MeterError", err)
		}
		answer, err := other.Receive(t.Context())
		if err != nil || answer.Len() != size {
			t.Fatalf("the other tenant's call: %v", err)
		}
		answer.Free()
		held.Free()
		if used := narrow.used.Load() + wide.used.Load(); used != 0 {
			t.Errorf("%d bytes are metered once all is freed", used)
		}
		third, _ := call(narrow, size)
		if answer, err = third.Receive(t.Context()); err != nil {
			t.Fatalf("once there is room: %v", err)
		}
		answer.Free()
	})
}

func TestMeter_EverythingIsReleased(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, echo(t), config())
		meter := allow(256 << 10)
		for n, length := range []int{0, 1, 100, 1000, 1024, 1025, 5000, 70_000, 2 << 20, 200_000, 2 << 20, 3} {
			stream, err := channel.Open(t.Context(), channels.Request{
				Path:       "/test/Echo",
				Message:    make([]byte, length),
				HasMessage: true,
				Last:       n%3 != 0,
				Meter:      meter,
			})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := stream.Receive(t.Context())
			switch {
			case err == nil:
				answer.Free()
			case errors.Is(err, io.EOF) || length <= 256<<10 || !errors.Is(err, errNoRoom):
				t.Errorf("%d bytes: %v", length, err)
			}
			stream.Close() // some before their end
			if used := meter.used.Load(); used != 0 {
				t.Errorf("%d bytes are metered after an answer of %d", used, length)
			}
		}
	})
}
