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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/auditlog"
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

// The callers of one account are bounded together, however many they are.
func TestCallers_AccountIsBounded(t *testing.T) {
	tracked, now := newCallers(1), time.Now()
	admitted := func(account streams.Account, now time.Time) (n int) {
		for i := range 30 {
			for range callerBurst {
				if _, ok := tracked.admit(account, fmt.Sprint("caller ", i), now); ok {
					n++
				}
			}
		}
		return n
	}
	if n := admitted("acme", now); n != 2000 {
		t.Errorf("%d records of one account, want 2000", n)
	}
	if n := admitted("globex", now); n != 2000 {
		t.Errorf("%d records of another account, want 2000", n)
	}
	if n := admitted("acme", now.Add(time.Second)); n != 100 {
		t.Errorf("%d records of one account in the next second, want 100", n)
	}
}

// The next record of an operator has the number of its calls that were not recorded.
func TestRecorder_OperatorsRecordCountsSuppressedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(nil, prometheus.NewRegistry(), zerolog.Nop())
		for n := range callerBurst + 3 {
			if _, ok := r.Admit(auditlog.ClassRead, "ada"); ok != (n < callerBurst) {
				t.Fatalf("call %d is recorded: %t", n+1, ok)
			}
		}
		time.Sleep(time.Second)
		admission, ok := r.Admit(auditlog.ClassRead, "ada")
		if !ok {
			t.Fatal("no call is recorded in the next second")
		}
		r.Operate(contextkit.RequestContext{}, streams.AccountPlatform, auditlog.ClassRead, Record{}, admission)
		item, ok := r.tenants.queue.TryTake()
		if !ok || item.Value.suppressed != 3 {
			t.Errorf("the record counts %+v suppressed calls, want 3", item.Value)
		}
	})
}

// A record whose acknowledgement was lost is sent again under the same message id, by which NATS stores it once.
func TestRecorder_RetriesAreStoredOnce(t *testing.T) {
	js := natstest.Start(t)
	o := newOutbox("operators", js, newCounters(), zerolog.Nop())
	o.queue.Add("_platform", 1, &entry{
		rc:      contextkit.RequestContext{CorrelationID: "c", Traceparent: contextkit.NewTraceparent()},
		subject: "audit._platform.operator",
		data:    []byte("{}"),
	})
	item, _ := o.queue.TryTake()
	s := o.send(t.Context(), js, item)
	if s.err != nil {
		t.Fatal(s.err)
	}
	stored := natstest.Await(t, s.future.Ok(), "acknowledgement")
	again, err := js.PublishMsg(t.Context(), s.msg)
	if err != nil || !again.Duplicate || again.Sequence != stored.Sequence {
		t.Errorf("stored at %d, and again as %+v, %v", stored.Sequence, again, err)
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
