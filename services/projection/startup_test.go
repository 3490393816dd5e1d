package projection_test

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// unread is a store whose checkpoint cannot be read before a channel is closed.
type unread struct {
	store.Store

	may <-chan struct{}
}

func (u unread) State(ctx context.Context) (store.State, error) {
	select {
	case <-u.may:
		return u.Store.State(ctx)
	case <-ctx.Done():
		return store.State{}, ctx.Err()
	}
}

func TestStart_LaterEventsDoNotHideCompleteViews(t *testing.T) {
	t.Parallel()
	overBoth(t, startLaterEventsDoNotHideCompleteViews)
}

func startLaterEventsDoNotHideCompleteViews(t *testing.T, newStore func(t *testing.T) store.Opener) {
	for name, test := range map[string]struct {
		complete bool // the views contain what the journal contained at the start
		tenants  []string
	}{
		"one event":                     {true, []string{"acme"}},
		"several events":                {true, []string{"acme", "globex", "acme", "acme"}},
		"other tenants' events":         {true, []string{"globex", "globex"}},
		"one event, views not built":    {false, []string{"acme"}},
		"no event, views not built":     {false, nil},
		"other events, views not built": {false, []string{"globex"}},
	} {
		t.Run(name, func(t *testing.T) {
			js, open := natstest.Start(t), newStore(t)
			first := start(t, js, open, model.Wallet)
			first.fill(t) // its last event is globex's: the tenant's own last one is not the journal's end
			if _, err := first.query(t, nil); err != nil {
				t.Fatal(err)
			}
			first.stop()
			if !test.complete {
				open = newStore(t)
			}
			read, apply := make(chan struct{}), make(chan struct{})
			second := start(
				t, js,
				func(
					ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string,
				) (store.Store, error) {
					s, err := open(ctx, tenant, views, origin)
					return unread{held{s, apply}, read}, err
				}, model.Wallet,
			)
			second.last, second.versions, second.sequence = first.last, first.versions, first.sequence
			for _, tenant := range test.tenants {
				second.append(t, tenant, "late", "opened", `{"owner":"late"}`)
			}
			close(read)
			res, err := second.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets"})
			switch {
			case test.complete && (err != nil || len(res.GetRows()) != 5):
				t.Errorf("got %v, %v; want the node's earlier rows", res.GetRows(), err)
			case !test.complete &&
				(connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "are being built")):
				t.Errorf("unbuilt views are served: %v", err)
			}
			close(apply)
			if _, err := second.query(t, nil); test.complete && err != nil {
				t.Error(err)
			}
			second.whole(t)
		})
	}
}
