package runner

import (
	"context"
	"sync"

	"github.com/headgate/headgate/contextkit"
)

// turns shares a node's places among its tenants: when all are taken, tenants
// that wait get them in turn, however many pieces of work each has (deficit
// round robin, Shreedhar and Varghese 1995, with pieces of equal cost, so that a
// turn is one piece).
type turns struct {
	mu      sync.Mutex
	free    int
	waiting map[contextkit.TenantID][]chan struct{}
	ring    []contextkit.TenantID // tenants with something waiting, the next first
}

func newTurns(places int) *turns {
	return &turns{free: places, waiting: map[contextkit.TenantID][]chan struct{}{}}
}

// take waits for a place, which leave gives back; or returns ctx's error.
func (t *turns) take(ctx context.Context, tenant contextkit.TenantID) (leave func(), err error) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return t.leave, nil
	}
	mine := make(chan struct{})
	if len(t.waiting[tenant]) == 0 {
		t.ring = append(t.ring, tenant)
	}
	t.waiting[tenant] = append(t.waiting[tenant], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return t.leave, nil
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
	return t.leave, nil // the place came at the same moment
}

// leave gives a place to the next tenant in turn, or back.
func (t *turns) leave() {
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

// forget takes a tenant out of the ring that has nothing waiting. t.mu is held.
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
