package backbone

import (
	"context"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
)

// Assignment says which tenants a node serves: those of its configuration and those
// that were created, but for the ones that are placed on other nodes of its kind.
type Assignment struct {
	kind, node string
	configured []contextkit.TenantID
	placements *Bucket[Placement]
	tenants    *Bucket[Tenant]
}

// OpenAssignment returns the assignment of a node.
func OpenAssignment(ctx context.Context, js jetstream.JetStream, kind, node string, configured []contextkit.TenantID) (*Assignment, error) {
	placements, err := OpenBucket[Placement](ctx, js, BucketPlacement)
	if err != nil {
		return nil, err
	}
	tenants, err := OpenBucket[Tenant](ctx, js, BucketTenants)
	if err != nil {
		return nil, err
	}
	return &Assignment{kind: kind, node: node, configured: configured, placements: placements, tenants: tenants}, nil
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

// Follow calls each with what [Assignment.Now] returns, first as it is and then
// whenever it may have changed, until ctx ends. failed hears of what keeps it from
// following meanwhile.
func (a *Assignment) Follow(ctx context.Context, each func(serves, suspended []contextkit.TenantID), failed func(error)) {
	var (
		placements = make(chan map[string]Kept[Placement])
		tenants    = make(chan map[string]Kept[Tenant])
		ended      = make(chan struct{}, 2)
	)
	go func() {
		a.placements.Follow(ctx, func(all map[string]Kept[Placement]) { hand(ctx, placements, all) }, failed)
		ended <- struct{}{}
	}()
	go func() {
		a.tenants.Follow(ctx, func(all map[string]Kept[Tenant]) { hand(ctx, tenants, all) }, failed)
		ended <- struct{}{}
	}()
	var (
		placed map[string]Kept[Placement]
		known  map[string]Kept[Tenant]
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

// of says which tenants follow from what is kept.
func (a *Assignment) of(placements map[string]Kept[Placement], tenants map[string]Kept[Tenant]) (serves, suspended []contextkit.TenantID) {
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
