package audit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// failing is a JetStream whose publishes fail a number of times, and which records their timeouts.
type failing struct {
	jetstream.JetStream

	left   int
	bounds []time.Duration // 0: none
}

func (f *failing) PublishMsg(
	ctx context.Context, msg *nats.Msg, options ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	bound := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		bound = time.Until(deadline)
	}
	f.bounds = append(f.bounds, bound)
	if f.left--; f.left >= 0 {
		return nil, errors.New("the server is unreachable")
	}
	return f.JetStream.PublishMsg(ctx, msg, options...)
}

func TestRecorder_EachAttemptHasATimeout(t *testing.T) {
	js := &failing{JetStream: natstest.Start(t), left: 2}
	o := newOutbox("operators", js, newCounters(), zerolog.Nop())
	o.queue.Add("_platform", 1, &entry{})
	item, _ := o.queue.TryTake()
	o.awaitAck(t.Context(), js,
		sent{item: item, msg: &nats.Msg{Subject: "audit._platform.operator", Data: []byte("{}")}, err: nats.ErrTimeout})
	if len(js.bounds) != 3 {
		t.Fatalf("%d attempts, want 3", len(js.bounds))
	}
	for i, bound := range js.bounds {
		if bound <= 0 || bound > 2*time.Second {
			t.Errorf("attempt %d may take %v, want at most 2 s", i+1, bound)
		}
	}
}

// A peer that calls a node directly fills its own share of the queue, and its next record has the number of
// suppressed records.
func TestDirect_RecordsArePerPeerBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDirect(nil, zerolog.Nop())
		for range 10_000 {
			d.Record(contextkit.RequestContext{}, streams.AccountPlatform, DirectRead,
				Record{Principal: "spiffe://example.com/role/projection"})
		}
		d.Record(contextkit.RequestContext{}, streams.AccountPlatform, DirectRead, Record{Client: "192.0.2.1"})
		if got := d.out.queue.Stats().Items; got != callerBurst+1 {
			t.Errorf("%d records are queued, want %d of one peer and 1 of the other", got, callerBurst)
		}
		time.Sleep(time.Second)
		d.Record(contextkit.RequestContext{}, streams.AccountPlatform, DirectRead,
			Record{Principal: "spiffe://example.com/role/projection"})
		last := ""
		for item, ok := d.out.queue.TryTake(); ok; item, ok = d.out.queue.TryTake() {
			if suppressed := item.Value.suppressed; suppressed > 0 {
				last = fmt.Sprint(suppressed)
			}
		}
		if want := fmt.Sprint(10_000 - callerBurst); last != want {
			t.Errorf("%s records are counted as suppressed, want %s", last, want)
		}
	})
}

// A peer whose denials and reads exceed their rates has its changes recorded.
func TestDirect_DenialsAndReadsSuppressNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDirect(nil, zerolog.Nop())
		for range 2 * callerBurst {
			for _, kind := range []DirectKind{DirectDenial, DirectRead} {
				d.Record(contextkit.RequestContext{}, streams.AccountPlatform, kind, Record{Client: "192.0.2.1"})
			}
		}
		before := d.out.queue.Stats().Items
		d.Record(contextkit.RequestContext{}, streams.AccountPlatform, DirectChange, Record{Client: "192.0.2.1"})
		if got := d.out.queue.Stats().Items; before != 2*callerBurst || got != before+1 {
			t.Errorf("%d records, and %d with that of a change", before, got)
		}
	})
}

// At the end of the process the queue is flushed for 5 s at most, so that a NATS that does not answer does not delay
// it longer.
func TestRecorder_LastFlushHasATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		life, end := outliving(ctx)
		defer end()
		time.Sleep(time.Hour)
		if life.Err() != nil {
			t.Fatalf("the publisher ends after %v without the process", time.Since(began))
		}
		stop()
		<-life.Done()
		if took := time.Since(began) - time.Hour; took != 5*time.Second {
			t.Errorf("the flush may take %v, want 5 s", took)
		}
	})
}

// A publisher whose queue is empty at the end does not wait.
func TestRecorder_NothingToFlushEndsImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		life, end := outliving(ctx)
		stop()
		synctest.Wait()
		if life.Err() != nil {
			t.Error("the flush has no time")
		}
		end() // synctest reports what does not end
		<-life.Done()
	})
}
