package audit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/natstest"
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
		return nil, errors.New("the server is away")
	}
	return f.JetStream.PublishMsg(ctx, msg, options...)
}

func TestRecorder_EachAttemptHasATimeout(t *testing.T) {
	js := &failing{JetStream: natstest.Start(t), left: 2}
	o := newOutbox("operators", js, newCounters(prometheus.NewRegistry()), zerolog.Nop())
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
