package events

import (
	"sync"

	"github.com/headgate/headgate/contextkit"
)

// queueShare is the divisor of the bounds of answers that yields those of queues: of a tenant, and of the node.
const queueShare = 4

// queued counts the bytes that the queues of all subscriptions hold. Beyond its bounds a subscription pauses after each
// batch until its client has received it. It may be used concurrently.
type queued struct {
	mostTenant, most int64

	mu      sync.Mutex
	total   int64
	tenants map[contextkit.TenantID]int64 // tenants without queued bytes are absent
}

func newQueued(tenantBytes, nodeBytes int64) *queued {
	return &queued{
		mostTenant: tenantBytes / queueShare,
		most:       nodeBytes / queueShare,
		tenants:    map[contextkit.TenantID]int64{},
	}
}

// add counts bytes, which are negative when they are taken, and reports whether the tenant, or all, have too many.
func (q *queued) add(tenant contextkit.TenantID, bytes int) (over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total += int64(bytes)
	q.tenants[tenant] += int64(bytes)
	over = q.total > q.most || q.tenants[tenant] > q.mostTenant
	if q.tenants[tenant] == 0 {
		delete(q.tenants, tenant)
	}
	return over
}

// bytes returns the bytes of all queues.
func (q *queued) bytes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}
