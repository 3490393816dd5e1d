package node

import (
	"errors"
	"fmt"
	"slices"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/config"
)

type nodeSettings struct {
	ID       string          `yaml:"id"`
	Kind     contextkit.Kind `yaml:"kind"`
	Endpoint string          `yaml:"endpoint"`
	Reflect  bool            `yaml:"reflect"`
}

type placementSettings struct {
	Tenant string          `yaml:"tenant"`
	Kind   contextkit.Kind `yaml:"kind"`
	Node   string          `yaml:"node"`
}

// placed returns the section's placements, which routes has checked.
func (g gatewaySettings) placed() []route.Placement {
	var out []route.Placement
	for _, p := range g.Placements {
		if tenant, err := contextkit.ParseTenantID(p.Tenant); err == nil {
			out = append(out, route.Placement{Tenant: tenant, Kind: p.Kind, Node: p.Node})
		}
	}
	return out
}

// routes returns the section's nodes, after own, and its placements.
func (g gatewaySettings) routes(own ...route.Node) (*route.Table, error) {
	var (
		nodes  = slices.Clone(own)
		placed []route.Placement
		errs   []error
	)
	for i, n := range g.Nodes {
		at := fmt.Sprintf("nodes.%d", i)
		if n.ID == "" || n.Kind == "" || n.Endpoint == "" {
			errs = append(errs, config.Wrong(at, "needs an id, a kind and an endpoint"))
		}
		if _, err := contextkit.ParseKind(n.Kind.String()); n.Kind != "" && err != nil {
			errs = append(errs, config.Wrong(at+".kind", "%v", err))
		}
		nodes = append(nodes, route.Node{
			ID:       n.ID,
			Kind:     n.Kind,
			Endpoint: n.Endpoint,
			Ready:    true,
		})
	}
	for i, p := range g.Placements {
		tenant, err := contextkit.ParseTenantID(p.Tenant)
		if err != nil {
			errs = append(errs, config.Wrong(fmt.Sprintf("placements.%d.tenant", i), "%v", err))
		}
		if _, err := contextkit.ParseKind(p.Kind.String()); err != nil {
			errs = append(errs, config.Wrong(fmt.Sprintf("placements.%d.kind", i), "%v", err))
		}
		placed = append(placed, route.Placement{Tenant: tenant, Kind: p.Kind, Node: p.Node})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	table := route.NewTable()
	if err := table.Replace(nodes, placed); err != nil {
		return nil, config.Wrong("nodes", "%v", err)
	}
	return table, nil
}
