package fleet

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// LoadPlacements applies the stored placements to the table. A gateway must call it before it serves: without
// placements it would route a placed tenant's calls to other nodes.
func (r *Router) LoadPlacements(ctx context.Context, js jetstream.JetStream) error {
	placements, err := kv.Open[fleet.Placement](ctx, js, streams.BucketPlacement)
	if err != nil {
		return err
	}
	all, err := placements.All(ctx)
	if err == nil {
		r.place(kv.Changes[fleet.Placement]{Put: all, Whole: true})
	}
	return err
}

// FollowPlacements maintains the table's placements until ctx ends.
func (r *Router) FollowPlacements(ctx context.Context, js jetstream.JetStream) {
	kv.Follow(ctx, js, streams.BucketPlacement, r.place, func(err error) {
		r.log.Warn().Err(err).Dur("again_in_ms", followAgain).Msg(
			"changes of placements are not received; the known placements stay",
		)
	})
}

// PlacementRevision returns the KV revision of the newest placement in the table.
func (r *Router) PlacementRevision() uint64 { return r.revision.Load() }

// place applies changes of placements to the table. They override the placements of the settings.
func (r *Router) place(changes kv.Changes[fleet.Placement]) {
	var placed []route.Placement
	if changes.Whole {
		placed = slices.Clone(r.placements)
	}
	revision := r.revision.Load()
	for key, stored := range changes.Put {
		revision = max(revision, stored.Revision)
		kind, tenant, ok := fleet.ParsePlacementKey(key)
		switch {
		case !ok:
		case stored.Value.Node == "":
			placed = append(placed, r.configured(kind, tenant))
		default:
			if node, known := r.table.Node(stored.Value.Node); known && node.Kind != kind {
				r.log.Warn().Str("placement", key).Str("node", node.ID).Msg(
					"a tenant is placed on a node of another kind",
				)
			}
			placed = append(placed, route.Placement{
				Tenant: tenant,
				Kind:   kind,
				Node:   stored.Value.Node,
				Only:   true,
			})
		}
	}
	for _, key := range changes.Deleted {
		if kind, tenant, ok := fleet.ParsePlacementKey(key); ok {
			placed = append(placed, r.configured(kind, tenant))
		}
	}
	if changes.Whole {
		r.table.PlaceAll(placed)
	} else {
		r.table.Place(placed...)
	}
	r.revision.Store(revision)
}

// configured returns the tenant's placement of the settings, without a node if there is none.
func (r *Router) configured(kind contextkit.Kind, tenant contextkit.TenantID) route.Placement {
	for _, p := range r.placements {
		if p.Tenant == tenant && p.Kind == kind {
			return p
		}
	}
	return route.Placement{Tenant: tenant, Kind: kind}
}
