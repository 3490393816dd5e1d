package events_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
)

// client is a subscribed client.
type client struct {
	position string
	caughtUp bool
	receive  func() (*aggregatev1.SubscribeResponse, error)
	close    func()
}

// subscribe begins a stream, and waits until the service has answered.
func (f *fixture) subscribe(t *testing.T, tenant string, req *aggregatev1.SubscribeRequest) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(as(t, tenant))
	stream, err := f.Subscribe(ctx, req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c := &client{receive: stream.Receive, close: func() {
		cancel()
		_ = stream.Close()
	}}
	t.Cleanup(c.close)
	return c
}

// next receives messages until they have n events, or the client has caught up if n is 0, and returns the events.
func (c *client) next(t *testing.T, n int) string {
	t.Helper()
	var out []string
	for len(out) < n || n == 0 && !c.caughtUp {
		message, err := c.receive()
		if err != nil {
			t.Fatalf("after %v: %v", out, err)
		}
		for _, e := range message.GetEvents() {
			text := fmt.Sprint(e.GetAggregateId(), e.GetVersion())
			if e.GetUnreadable() != nil {
				text += "!"
			}
			out = append(out, text)
		}
		c.position, c.caughtUp = message.GetPosition(), message.GetCaughtUp()
	}
	return strings.Join(out, " ")
}

func TestSubscribe_SendsHistoryThenEventsAsTheyAreAppended(t *testing.T) {
	f := start(t, 0)
	f.append(t, "acme", "ada", 1, 2)
	f.append(t, "globex", "eve", 1, 1)
	natstest.PublishStrange(t, f.js, natstest.Strange{Fault: journal.FaultData}, "acme", "wallet", "bad", "opened", 1,
		`[]`)
	all := f.subscribe(t, "acme", &aggregatev1.SubscribeRequest{FromBeginning: true})
	if got := all.next(t, 0); got != "ada1 ada2 bad1!" {
		t.Errorf("the history is %q", got)
	}
	live := f.subscribe(t, "acme",
		&aggregatev1.SubscribeRequest{AggregateType: "wallet", EventTypes: []string{"deposited"}})
	if got := live.next(t, 0); got != "" {
		t.Errorf("events from before the subscription: %q", got)
	}
	other := f.subscribe(t, "acme", &aggregatev1.SubscribeRequest{AggregateType: "order"})
	other.next(t, 0)
	f.append(t, "globex", "eve", 2, 1)
	f.append(t, "acme", "ada", 3, 2)
	for name, c := range map[string]*client{"all": all, "live": live} {
		if got := c.next(t, 2); got != "ada3 ada4" {
			t.Errorf("%s: %q", name, got)
		}
	}
	// A client that resumes misses nothing and receives nothing twice.
	all.close()
	f.append(t, "acme", "bob", 1, 3)
	for _, after := range []string{all.position, live.position} {
		if got := f.subscribe(
			t, "acme", &aggregatev1.SubscribeRequest{After: after},
		).next(t, 0); got != "bob1 bob2 bob3" {
			t.Errorf("after the last position: %q", got)
		}
	}
	_, err := f.subscribe(t, "globex", &aggregatev1.SubscribeRequest{After: all.position}).receive()
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("another tenant's position: %v", err)
	}
}

// A client that does not read has a bounded queue, is no hindrance to others, and gets every event in order later.
func TestSubscribe_SlowClientMissesNothing(t *testing.T) {
	f := start(t, 0)
	slow := f.subscribe(t, "acme", &aggregatev1.SubscribeRequest{})
	fast := f.subscribe(t, "acme", &aggregatev1.SubscribeRequest{})
	slow.next(t, 0)
	fast.next(t, 0)
	const count, each = 3000, 500
	var want []string
	for n := 1; n <= count; n += each {
		f.append(t, "acme", "ada", n, each)
		for v := n; v < n+each; v++ {
			want = append(want, fmt.Sprint("ada", v))
		}
		if got := fast.next(t, each); got != strings.Join(want[n-1:n-1+each], " ") {
			t.Fatalf("the client that reads receives %.200s", got)
		}
	}
	var got []string
	for len(got) < count {
		got = append(got, strings.Fields(slow.next(t, 1))...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the slow client receives %d events, not those in order", len(got))
	}
}

// A number of two bytes is fifty times as large in memory: messages are bounded by that size, not by the stored one.
func TestSubscribe_MessageIsBoundedInBytes(t *testing.T) {
	const page = 64 << 10
	f := start(t, page)
	large := natstest.Events("ada", 1, 12, "")
	for n := range large {
		large[n].Data = []byte(`{"a":[` + strings.TrimSuffix(strings.Repeat("0,", 1000), ",") + `]}`)
	}
	if err := f.journal.Append(as(t, "acme"), natstest.Tenant(t, "acme"), 0, large); err != nil {
		t.Fatal(err)
	}
	c := f.subscribe(t, "acme", &aggregatev1.SubscribeRequest{FromBeginning: true})
	for received := 0; received < len(large); {
		message, err := c.receive()
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(message); size > page {
			t.Errorf("a message of %d events has %d bytes, want at most %d", len(message.GetEvents()), size, page)
		}
		received += len(message.GetEvents())
	}
}

func TestSubscribe_EndsWhenTenantMoves(t *testing.T) {
	f := start(t, 0)
	acme, globex := f.subscribe(t, "acme",
		&aggregatev1.SubscribeRequest{}), f.subscribe(t, "globex", &aggregatev1.SubscribeRequest{})
	acme.next(t, 0)
	globex.next(t, 0)
	f.tenants.Replace(f.tenants.All()[1:])
	for {
		if _, err := acme.receive(); err != nil {
			if connect.CodeOf(err) != connect.CodeUnavailable ||
				!strings.Contains(err.Error(), "resume with the last position") {
				t.Errorf("the stream of a tenant that has moved ends with %v", err)
			}
			break
		}
	}
	f.append(t, "globex", "eve", 1, 1)
	if got := globex.next(t, 1); got != "eve1" {
		t.Errorf("the other tenant receives %q", got)
	}
}

func TestSubscribe_TenantHasABound(t *testing.T) {
	f := start(t, 0)
	const bound = 64
	var group errgroup.Group
	for range bound {
		c := f.subscribe(t, "acme", &aggregatev1.SubscribeRequest{})
		group.Go(func() error {
			_, err := c.receive()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.subscribe(
		t, "acme", &aggregatev1.SubscribeRequest{},
	).receive(); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if _, err := f.subscribe(t, "globex", &aggregatev1.SubscribeRequest{}).receive(); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	stream, err := f.js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := stream.Info(t.Context()); err != nil || info.State.Consumers > 7 {
		t.Errorf("%d subscriptions have %d consumers, %v", bound, info.State.Consumers, err)
	}
}
