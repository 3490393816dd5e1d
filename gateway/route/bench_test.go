package route_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
)

// filled returns a table of the given number of nodes and of tenants, each placed on one of
// them if that is asked for, and the tenants.
func filled(b *testing.B, endpoints, tenants int, placed bool) (*route.Table, []contextkit.TenantID) {
	b.Helper()
	table, ids := route.NewTable(), make([]contextkit.TenantID, tenants)
	if err := table.SetNodes(nodes(endpoints)); err != nil {
		b.Fatal(err)
	}
	all := make([]route.Placement, tenants)
	for i := range ids {
		ids[i] = tenant(b, fmt.Sprintf("tenant-%d", i))
		all[i] = route.Placement{
			Tenant: ids[i],
			Kind:   contextkit.KindProjection,
			Node:   fmt.Sprintf("p%d", i%endpoints),
			Only:   true,
		}
	}
	if placed {
		table.PlaceAll(all)
	}
	return table, ids
}

// BenchmarkLookup measures the routing of a tenant's call: by its placement, whose cost must not
// grow with the tenants, or by the hash, whose cost grows only with the nodes of the kind.
func BenchmarkLookup(b *testing.B) {
	for _, placed := range []bool{true, false} {
		for _, endpoints := range []int{10, 1000} {
			for _, tenants := range []int{10, 1000, 100_000} {
				b.Run(fmt.Sprintf("placed=%v/endpoints=%d/tenants=%d", placed, endpoints, tenants), func(b *testing.B) {
					table, ids := filled(b, endpoints, tenants, placed)
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						if _, ok := table.Lookup(contextkit.KindProjection, ids[i*7919%tenants]); !ok {
							b.Fatal("no node")
						}
					}
				})
			}
		}
	}
}

// BenchmarkChange measures the cost of a change for the gateway: a tenant's placement, or a node's
// readiness.
func BenchmarkChange(b *testing.B) {
	for _, tenants := range []int{10, 1000, 100_000} {
		table, ids := filled(b, 1000, tenants, true)
		b.Run(fmt.Sprintf("placement/tenants=%d", tenants), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Place(route.Placement{
					Tenant: ids[i*7919%tenants],
					Kind:   contextkit.KindProjection,
					Node:   fmt.Sprintf("p%d", i%1000),
					Only:   true,
				})
			}
		})
		b.Run(fmt.Sprintf("node/tenants=%d", tenants), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.SetReady(fmt.Sprintf("p%d", i/2%1000), i%2 != 0)
			}
		})
	}
}

// BenchmarkMemory measures the bytes per placed tenant.
func BenchmarkMemory(b *testing.B) {
	const tenants = 100_000
	var before, after runtime.MemStats
	for b.Loop() {
		table, ids := filled(b, 1000, tenants, false)
		all := make([]route.Placement, tenants)
		for i, id := range ids {
			all[i] = route.Placement{
				Tenant: id,
				Kind:   contextkit.KindProjection,
				Node:   fmt.Sprintf("p%d", i%1000),
				Only:   true,
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		table.PlaceAll(all)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(table)
		runtime.KeepAlive(all)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/tenants, "B/tenant")
}
