package events

import (
	"cmp"
	"context"
	"time"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/tail"
)

const (
	// beat is the interval of keep-alive messages.
	beat = 15 * time.Second
	// sendWait is how long a message may wait for others of its tenant to be sent.
	sendWait = 5 * time.Second
)

// Subscribe implements EventService.
func (s *Service) Subscribe(
	ctx context.Context,
	req *aggregatev1.SubscribeRequest,
	stream gatewayv1connect.EventServiceSubscribeServerStream,
) error {
	err := s.subscribe(ctx, req, stream)
	s.feed.count(ctx, err)
	return asConnectError(err)
}

func (s *Service) subscribe(
	ctx context.Context,
	req *aggregatev1.SubscribeRequest,
	stream gatewayv1connect.EventServiceSubscribeServerStream,
) error {
	moved := s.Tenants.Changed()
	tenant, err := s.Tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return err
	}
	epoch := s.Journal.Epoch()
	after, err := s.start(ctx, tenant, req)
	if err != nil {
		return err
	}
	options := tail.Options{Events: batchEvents, Bytes: batchBytes}
	if name := req.GetAggregateType(); name != "" {
		options.Accept = func(aggregateType string) bool { return aggregateType == name }
	}
	client := newSubscriber(tenant, s.feed.queued, after, req.GetEventTypes())
	//nolint:contextcheck // the tail that streams share ends with Run, not with one of them
	subscription, leave, err := s.feed.subscribe(tenant, client, options)
	if err != nil {
		return err
	}
	defer client.end()
	defer leave()
	client.attach(subscription)
	f := following{
		Service: s,
		tenant:  tenant,
		client:  client,
		stream:  stream,
		epoch:   epoch,
	}
	return f.run(ctx, moved)
}

// start returns the sequence after which a request's events begin.
func (s *Service) start(
	ctx context.Context,
	tenant contextkit.TenantID,
	req *aggregatev1.SubscribeRequest,
) (uint64, error) {
	switch {
	case req.GetAfter() != "":
		after, err := s.Positions.Parse(tenant, req.GetAfter())
		return after, wrongPosition("after", err)
	case req.GetFromBeginning():
		return 0, nil
	}
	return s.Journal.Last(ctx, tenant)
}

// following is one client's stream.
type following struct {
	*Service

	tenant contextkit.TenantID
	client *subscriber
	stream gatewayv1connect.EventServiceSubscribeServerStream
	epoch  int64 // of the journal when the stream began

	caughtUp bool // the client knows that it has caught up
}

// run sends events until ctx ends, the tenant moves or the node stops.
func (f *following) run(ctx context.Context, moved <-chan struct{}) error {
	keepAlive := time.NewTicker(beat)
	defer keepAlive.Stop()
	for due := false; ; {
		if err := f.send(ctx, due); err != nil {
			return err
		}
		due = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.feed.stopped:
			return errStopping
		case <-moved:
			if moved = f.Tenants.Changed(); !f.Tenants.Serves(f.tenant) {
				return errMoved
			}
		case <-f.Journal.Integrity().Changed():
		case <-keepAlive.C:
			due = true
		case <-f.client.ready:
		}
		if f.Journal.Epoch() != f.epoch {
			return errReplaced
		}
	}
}

// send sends what is queued, and a message without events if due is set or the client has caught up by it.
func (f *following) send(ctx context.Context, due bool) error {
	taken, upTo, caughtUp, err := f.client.take(f.Answers.PageBytes())
	if err != nil || len(taken) == 0 && !due && caughtUp == f.caughtUp {
		return err
	}
	f.caughtUp = caughtUp
	// The memory is reserved before it is used: the streams of a tenant that wait for others hold stored messages only.
	weight := 0
	for _, m := range taken {
		weight += weightOf(m)
	}
	waiting, cancel := context.WithTimeout(ctx, sendWait)
	release, err := f.Answers.Wait(waiting, f.tenant, weight)
	cancel()
	if err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	defer release()
	message := &aggregatev1.SubscribeResponse{Position: f.Positions.Format(f.tenant, upTo), CaughtUp: caughtUp}
	for _, m := range taken {
		message.Events = append(message.Events, f.message(f.tenant, m))
	}
	return f.stream.Send(message)
}
