package events

import (
	"testing"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
)

// pausing is a subscription without a tail.
type pausing struct{}

func (pausing) Pause()            {}
func (pausing) Resume()           {}
func (pausing) Delivered() uint64 { return 0 }

// The queues of a tenant's subscriptions, and of all tenants, have a common bound, beyond which each holds one batch.
func TestQueued_SubscriptionsShareABound(t *testing.T) {
	const message = 100<<10 + storedBytes
	all := newQueued(queueShare*5*message, queueShare*7*message)
	acme, globex := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")
	subscribed := func(s *subscriber) *subscriber {
		s.sub = pausing{}
		return s
	}
	apply := func(s *subscriber, sequence uint64) bool {
		batch := s.Batch().(*received)
		batch.messages = append(batch.messages, journal.Message{Sequence: sequence, Data: make([]byte, 100<<10)})
		batch.last = sequence
		if err := batch.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s.full
	}
	first, second := subscribed(newSubscriber(acme, all, 0, nil)), subscribed(newSubscriber(acme, all, 0, nil))
	other, third := subscribed(newSubscriber(globex, all, 0, nil)), subscribed(newSubscriber(globex, all, 0, nil))
	for n := range uint64(5) {
		if apply(first, n+1) {
			t.Errorf("the first subscription pauses after %d messages", n+1)
		}
	}
	if !apply(second, 1) {
		t.Error("the tenant's second subscription does not pause beyond the bound of both")
	}
	if apply(other, 1) {
		t.Error("another tenant's subscription pauses within the bound of all")
	}
	if !apply(third, 1) {
		t.Error("a subscription does not pause beyond the bound of all")
	}
	if got := all.bytes(); got != 8*message {
		t.Errorf("%d bytes are counted, want %d", got, 8*message)
	}
	for _, s := range []*subscriber{first, second, other, third} {
		s.end()
		apply(s, 9) // a batch that was under way
	}
	if all.bytes() != 0 || len(all.tenants) != 0 {
		t.Errorf("%d bytes of %d tenants are counted after the end of all subscriptions", all.bytes(), len(all.tenants))
	}
}
