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

// errStopping is the reason that a gateway in shutdown is not ready.
var errStopping = errors.New("the gateway is stopping")

// ready reports why the gateway cannot serve: any call, when tenant is zero, or the
// tenant's calls.
//
// Without a tenant it answers a load balancer: the gateway is ready while a node of at least
// one kind takes calls. Kinds without such a node are degraded (see [Gateway.degraded]): no
// other gateway could serve their calls either.
//
// For a tenant it is stricter: every kind that answers calls for tenants must serve this
// tenant, except for the optional kinds (see Config.Optional), which are degraded.
func (g *Gateway) ready(ctx context.Context, tenant contextkit.TenantID) error {
	select {
	case <-g.server.Stopping():
		return errStopping
	default:
	}
	if !tenant.IsZero() {
		return g.readyFor(ctx, tenant)
	}
	kinds := g.table.Load().Upstreams()
	if len(kinds) == 0 {
		return errors.New("no method is served: no descriptor has a policy")
	}
	for _, kind := range kinds {
		if len(g.routes.Ready(kind)) > 0 {
			return nil
		}
	}
	return fmt.Errorf("no node takes calls: start one of these kinds: %s", strings.Join(kinds, ", "))
}

// readyFor reports why the tenant's calls are refused.
func (g *Gateway) readyFor(ctx context.Context, tenant contextkit.TenantID) error {
	if reason := g.suspended(tenant, unprivileged); reason != "" {
		return errors.New(reason)
	}
	refused, err := g.standings.of(ctx, tenant)
	if err != nil {
		return err
	}
	var reasons []string
	for _, kind := range slices.Sorted(maps.Keys(refused)) {
		if !slices.Contains(g.config.Optional, kind) {
			reasons = append(reasons, kind+": "+refused[kind])
		}
	}
	if len(reasons) > 0 {
		return errors.New(strings.Join(reasons, "; "))
	}
	return nil
}

// unprivileged is a principal without rights.
var unprivileged = &auth.Principal{}

// degraded returns the kinds of nodes whose calls are refused, each with the reason: for
// all callers when tenant is zero, or for the tenant's.
func (g *Gateway) degraded(ctx context.Context, tenant contextkit.TenantID) map[string]string {
	if !tenant.IsZero() {
		refused, _ := g.standings.of(ctx, tenant) // readyFor returns its error
		return refused
	}
	out := map[string]string{}
	for _, kind := range g.table.Load().Upstreams() {
		if len(g.routes.Ready(kind)) == 0 {
			out[kind] = g.noNode(kind)
		}
	}
	g.undescribed.Range(func(_, kind any) bool {
		if kind := kind.(string); out[kind] == "" {
			out[kind] = "a node has not described its services yet"
		}
		return true
	})
	return out
}

// parts returns what /ready shows as degraded: the kinds of nodes whose calls are refused, and
// the other parts of the platform (see [Config]).
func (g *Gateway) parts(ctx context.Context, tenant contextkit.TenantID) map[string]string {
	out := g.degraded(ctx, tenant)
	if g.config.Degraded == nil {
		return out
	}
	parts := g.config.Degraded()
	maps.Copy(parts, out)
	return parts
}

// SetUndescribed shows the kind as degraded because the node has not described its services
// yet, so that they are not served (see [Gateway.Describe]). The kind "" says that it has.
func (g *Gateway) SetUndescribed(node, kind string) {
	if kind == "" {
		g.undescribed.Delete(node)
	} else {
		g.undescribed.Store(node, kind)
	}
}

// Answers reports whether a node of the routing table answers the gateway's probes, with whatever
// answer. known is false before it has been probed.
func (g *Gateway) Answers(node string) (answers, known bool) { return g.prober.Answers(node) }

// noNode returns why calls of the kind are refused.
func (g *Gateway) noNode(kind string) string {
	text := "no " + kind + " node takes calls"
	if refusal := g.routes.Refusal(kind); refusal != "" {
		text += ": " + excerpt.Text(refusal, excerpt.Name)
	}
	return text
}

// Degraded returns the kinds of nodes of which none takes calls, sorted. Their calls are
// refused; the gateway is ready for calls of other kinds.
func (g *Gateway) Degraded(ctx context.Context) []string {
	return slices.Sorted(maps.Keys(g.degraded(ctx, contextkit.TenantID{})))
}

// mayAsk returns why a request at the edge may not ask for the tenant's readiness: it needs a
// credential that acts for the tenant, as the tenant's calls do. Otherwise anyone could find
// out which tenants exist, and which are suspended.
func (g *Gateway) mayAsk(r *http.Request, tenant contextkit.TenantID) error {
	principal, err := g.verifier.Authenticate(r.Context(), time.Now(), r.Header.Values(headerAuthorization))
	if err != nil {
		return unauthenticated(fmt.Errorf("a tenant's readiness is shown to its own credentials, and at the operators' port: %w", err))
	}
	if !principal.ActsFor(tenant) {
		return rpc.WithDetails(connect.Errorf(connect.CodePermissionDenied, "the credential is not for tenant %s", tenant), rpc.Reason("TENANT"))
	}
	return nil
}
