package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
)

// errStopping is the readiness error of a gateway that shuts down.
var errStopping = errors.New("the gateway is stopping")

// ready returns nil if the gateway can serve calls, else the reason that it cannot: any call when
// tenant is zero, else the tenant's calls.
//
// A drained gateway is not ready for any call, so that load balancers choose others.
//
// Without a tenant it answers a load balancer: the gateway is ready while at least one node of
// any kind is ready. Kinds without a ready node are degraded (see [Gateway.degraded]), because no
// other gateway could serve their calls either.
//
// For a tenant it is stricter: every kind that serves tenants must serve this tenant, except for
// the optional kinds (see Config.Optional), which are degraded.
func (g *Gateway) ready(ctx context.Context, tenant contextkit.TenantID) error {
	select {
	case <-g.server.Stopping():
		return errStopping
	default:
	}
	if g.config.Drained != nil {
		if err := g.config.Drained(); err != nil {
			return err
		}
	}
	if !tenant.IsZero() {
		return g.readyFor(ctx, tenant)
	}
	upstreams := g.table.Load().Upstreams()
	if len(upstreams) == 0 {
		return errors.New("no method is served: no descriptor has a policy")
	}
	var kinds []string
	for _, kind := range upstreams {
		if len(g.routes.Ready(kind)) > 0 {
			return nil
		}
		kinds = append(kinds, kind.String())
	}
	return fmt.Errorf("no node is ready: start one of these kinds: %s", strings.Join(kinds, ", "))
}

// readyFor returns nil if the gateway can serve the tenant's calls, else the reason that it cannot.
func (g *Gateway) readyFor(ctx context.Context, tenant contextkit.TenantID) error {
	if reason := g.suspended(tenant, unprivileged); reason != "" {
		return errors.New(reason)
	}
	refused, err := g.readiness.refusals(ctx, tenant)
	if err != nil {
		return err
	}
	var reasons []string
	for _, kind := range slices.Sorted(maps.Keys(refused)) {
		if !slices.Contains(g.config.Optional, kind) {
			reasons = append(reasons, kind.String()+": "+refused[kind])
		}
	}
	if len(reasons) > 0 {
		return errors.New(strings.Join(reasons, "; "))
	}
	return nil
}

// unprivileged is a principal without rights.
var unprivileged = &auth.Principal{}

// degraded returns the kinds of nodes whose calls are rejected, each with the reason: for all
// callers when tenant is zero, else for the tenant.
func (g *Gateway) degraded(ctx context.Context, tenant contextkit.TenantID) map[contextkit.Kind]string {
	if !tenant.IsZero() {
		refused, _ := g.readiness.refusals(ctx, tenant) // readyFor returns its error
		return refused
	}
	out := map[contextkit.Kind]string{}
	for _, kind := range g.table.Load().Upstreams() {
		if len(g.routes.Ready(kind)) == 0 {
			out[kind] = g.noNode(kind)
		}
	}
	g.undescribed.Range(func(_, kind any) bool {
		if kind := kind.(contextkit.Kind); out[kind] == "" {
			out[kind] = "a node has not described its services yet"
		}
		return true
	})
	return out
}

// degradedParts returns what /ready shows as degraded: the kinds of nodes whose calls are rejected,
// the issuers and sources of revocations that cannot be read, and the other parts of the platform (see
// Config.Degraded).
func (g *Gateway) degradedParts(ctx context.Context, tenant contextkit.TenantID) map[string]string {
	parts := map[string]string{}
	if g.config.Degraded != nil {
		parts = g.config.Degraded()
	}
	for name, reason := range g.verifier.DegradedIssuers() {
		parts["issuer "+name] = reason
	}
	for source, reason := range g.verifier.DegradedRevocations() {
		parts["revocations of "+source] = reason
	}
	if reason := g.verifier.DegradedIssuedKeys(); reason != "" {
		parts["API keys of platform"] = reason
	}
	for kind, reason := range g.degraded(ctx, tenant) {
		parts[kind.String()] = reason
	}
	return parts
}

// SetUndescribed reports the kind as degraded because the node has not described its services yet
// (see [Gateway.Describe]). The kind "" ends the report.
func (g *Gateway) SetUndescribed(node string, kind contextkit.Kind) {
	if kind == "" {
		g.undescribed.Delete(node)
	} else {
		g.undescribed.Store(node, kind)
	}
}

// Answers reports whether a node of the routing table answers the gateway's probes, ready or not.
// known is false until it has been probed.
func (g *Gateway) Answers(node string) (answers, known bool) { return g.prober.Answers(node) }

// noNode returns the reason that calls of the kind are rejected.
func (g *Gateway) noNode(kind contextkit.Kind) string {
	text := "no " + kind.String() + " node is ready"
	if refusal := g.routes.Refusal(kind); refusal != "" {
		text += ": " + excerpt.Text(refusal, excerpt.Name)
	}
	return text
}

// Degraded returns the kinds of nodes without a ready node, sorted. Their calls are rejected; the
// gateway is ready for calls of other kinds.
func (g *Gateway) Degraded(ctx context.Context) []contextkit.Kind {
	return slices.Sorted(maps.Keys(g.degraded(ctx, contextkit.TenantID{})))
}

// authorizeReadiness returns nil if a request at the edge may read the tenant's readiness, else the
// reason. It requires a credential that acts for the tenant, so that strangers cannot find out
// which tenants exist and which are suspended.
func (g *Gateway) authorizeReadiness(r *http.Request, tenant contextkit.TenantID) error {
	principal, err := g.principal(r.Context(), time.Now(), r.Header.Values)
	if err != nil {
		return unauthenticated(
			fmt.Errorf("the readiness of a tenant requires a credential of the tenant, or the admin port: %w", err),
		)
	}
	if !principal.ActsFor(tenant) {
		return rpc.WithDetails(
			connect.Errorf(connect.CodePermissionDenied, "the credential is not for tenant %s", tenant),
			rpc.Reason(rpc.ReasonTenantMismatch),
		)
	}
	return nil
}
