package runner

import (
	"context"
	"sync"

	"github.com/headgate/headgate/contextkit"
)

// turns is a concurrency limiter that a node's tenants share fairly: at the limit, waiting tenants get free slots in
// turn, regardless of how many pieces of work each has (deficit round robin, Shreedhar and Varghese 1995, with pieces
// of equal cost, so that a turn is one piece).
type turns struct {
	mu      sync.Mutex
	free    int
	waiting map[contextkit.TenantID][]chan struct{}
	ring    []contextkit.TenantID // tenants with waiters, the next first
}

func newTurns(slots int) *turns {
	return &turns{free: slots, waiting: map[contextkit.TenantID][]chan struct{}{}}
}

// acquire waits for a slot, which release frees; or returns ctx's error.
func (t *turns) acquire(ctx context.Context, tenant contextkit.TenantID) (release func(), err error) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return t.release, nil
	}
	mine := make(chan struct{})
	if len(t.waiting[tenant]) == 0 {
		t.ring = append(t.ring, tenant)
	}
	t.waiting[tenant] = append(t.waiting[tenant], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return t.release, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, waiting := range t.waiting[tenant] {
		if waiting == mine {
			t.waiting[tenant] = append(t.waiting[tenant][:i:i], t.waiting[tenant][i+1:]...)
			t.forget(tenant)
			return nil, ctx.Err()
		}
	}
	return t.release, nil // the slot was granted at the same moment
}

// release passes a slot to the next tenant in turn, or frees it.
func (t *turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) == 0 {
		t.free++
		return
	}
	tenant := t.ring[0]
	next := t.waiting[tenant][0]
	t.waiting[tenant] = t.waiting[tenant][1:]
	t.ring = append(t.ring[1:], tenant)
	t.forget(tenant)
	close(next)
}

// forget removes a tenant without waiters from the ring. The caller holds t.mu.
func (t *turns) forget(tenant contextkit.TenantID) {
	if len(t.waiting[tenant]) > 0 {
		return
	}
	delete(t.waiting, tenant)
	for i, other := range t.ring {
		if other == tenant {
			t.ring = append(t.ring[:i:i], t.ring[i+1:]...)
			return
		}
	}
}
