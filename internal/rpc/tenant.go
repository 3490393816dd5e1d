package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
)

// Tenants is the set of tenants that a node serves. It may change while the node
// runs. Its methods may be called concurrently.
type Tenants struct {
	current atomic.Pointer[[]contextkit.TenantID] // sorted

	mu      sync.Mutex // held to change it
	changed chan struct{}
}

// NewTenants returns the set of the given tenants.
func NewTenants(tenants ...contextkit.TenantID) *Tenants {
	t := &Tenants{changed: make(chan struct{})}
	t.current.Store(&[]contextkit.TenantID{})
	t.Replace(tenants)
	return t
}

// ParseTenants parses names into a set.
func ParseTenants(names []string) (*Tenants, error) {
	if len(names) == 0 {
		return nil, errors.New("no tenant is configured")
	}
	tenants := make([]contextkit.TenantID, 0, len(names))
	for _, name := range names {
		tenant, err := contextkit.ParseTenantID(name)
		if err != nil {
			return nil, err
		}
		tenants = append(tenants, tenant)
	}
	return NewTenants(tenants...), nil
}

// All returns the tenants by name. The slice must not be changed.
func (t *Tenants) All() []contextkit.TenantID { return *t.current.Load() }

// Serves reports whether tenant is in the set.
func (t *Tenants) Serves(tenant contextkit.TenantID) bool {
	_, found := slices.BinarySearchFunc(t.All(), tenant, compareTenants)
	return found
}

// Ready returns an error that wraps [ErrNotServed] unless tenant is in the set.
func (t *Tenants) Ready(tenant contextkit.TenantID) error {
	if !t.Serves(tenant) {
		return fmt.Errorf("tenant %s %w", tenant, ErrNotServed)
	}
	return nil
}

// Replace replaces the set by the given tenants. If it differs, callers that wait for
// [Tenants.Changed] are notified.
func (t *Tenants) Replace(tenants []contextkit.TenantID) {
	next := slices.Clone(tenants)
	slices.SortFunc(next, compareTenants)
	next = slices.Compact(next)
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(next, t.All()) {
		return
	}
	t.current.Store(&next)
	close(t.changed)
	t.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change of the set.
func (t *Tenants) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

func compareTenants(a, b contextkit.TenantID) int { return strings.Compare(a.String(), b.String()) }

// Of returns the call's tenant, from the context. The request's field must be empty or agree with
// it; the gateway has checked that, and the node checks again because clients may reach its port
// directly. Errors: PERMISSION_DENIED if they disagree, NOT_FOUND if the node does not serve the
// tenant.
func (t *Tenants) Of(ctx context.Context, field string) (contextkit.TenantID, error) {
	rc, _ := contextkit.FromContext(ctx)
	if field != "" && field != rc.TenantID.String() {
		return contextkit.TenantID{}, connect.Errorf(connect.CodePermissionDenied,
			"tenant_id names %q, the call is for %q", field, rc.TenantID)
	}
	if !t.Serves(rc.TenantID) {
		return contextkit.TenantID{}, connect.Errorf(connect.CodeNotFound, "tenant %q is not served here", rc.TenantID)
	}
	return rc.TenantID, nil
}
