package fleet

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Assignment is the set of tenants that a node serves: the configured and the created ones, except
// tenants that are placed on other nodes of its kind.
type Assignment struct {
	kind       contextkit.Kind
	node       string
	configured []contextkit.TenantID
	placements *kv.Bucket[Placement]
	tenants    *kv.Bucket[Tenant]
}

// OpenAssignment returns the assignment of a node.
func OpenAssignment(
	ctx context.Context,
	js jetstream.JetStream,
	kind contextkit.Kind,
	node string,
	configured []contextkit.TenantID,
) (*Assignment, error) {
	placements, err := kv.Open[Placement](ctx, js, streams.BucketPlacement)
	if err != nil {
		return nil, err
	}
	tenants, err := kv.Open[Tenant](ctx, js, streams.BucketTenants)
	if err != nil {
		return nil, err
	}
	return &Assignment{
		kind:       kind,
		node:       node,
		configured: configured,
		placements: placements,
		tenants:    tenants,
	}, nil
}

// Now returns the tenants that the node serves now, in no order, and those of them
// that are suspended.
func (a *Assignment) Now(ctx context.Context) (serves, suspended []contextkit.TenantID, err error) {
	placements, err := a.placements.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	tenants, err := a.tenants.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	serves, suspended = a.of(placements, tenants)
	return serves, suspended, nil
}

// Follow calls each with the result of [Assignment.Now], immediately and whenever it may have changed,
// until ctx ends. It calls failed with errors that delay it.
func (a *Assignment) Follow(
	ctx context.Context,
	each func(serves, suspended []contextkit.TenantID),
	failed func(error),
) {
	var (
		placements = make(chan map[string]kv.Entry[Placement])
		tenants    = make(chan map[string]kv.Entry[Tenant])
		ended      = make(chan struct{}, 2)
	)
	go func() {
		a.placements.Follow(ctx, func(all map[string]kv.Entry[Placement]) { hand(ctx, placements, all) }, failed)
		ended <- struct{}{}
	}()
	go func() {
		a.tenants.Follow(ctx, func(all map[string]kv.Entry[Tenant]) { hand(ctx, tenants, all) }, failed)
		ended <- struct{}{}
	}()
	var (
		placed map[string]kv.Entry[Placement]
		known  map[string]kv.Entry[Tenant]
	)
	for left := 2; left > 0; {
		select {
		case placed = <-placements:
		case known = <-tenants:
		case <-ended:
			left--
			continue
		}
		if placed != nil && known != nil {
			each(a.of(placed, known))
		}
	}
}

// hand gives a value over, unless ctx ends first.
func hand[T any](ctx context.Context, to chan<- T, value T) {
	select {
	case to <- value:
	case <-ctx.Done():
	}
}

// of returns the tenants that follow from the stored records.
func (a *Assignment) of(
	placements map[string]kv.Entry[Placement],
	tenants map[string]kv.Entry[Tenant],
) (serves, suspended []contextkit.TenantID) {
	seen := map[contextkit.TenantID]bool{}
	add := func(tenant contextkit.TenantID) {
		if seen[tenant] {
			return
		}
		seen[tenant] = true
		if p, placed := placements[PlacementKey(a.kind, tenant)]; placed && !p.Value.Serves(a.node) {
			return
		}
		serves = append(serves, tenant)
		if tenants[tenant.String()].Value.Suspended {
			suspended = append(suspended, tenant)
		}
	}
	for _, tenant := range a.configured {
		add(tenant)
	}
	for name := range tenants {
		if tenant, err := contextkit.ParseTenantID(name); err == nil {
			add(tenant)
		}
	}
	return serves, suspended
}
