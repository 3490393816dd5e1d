package postgres

import (
	"context"
	"fmt"
	"sync"

	"github.com/headgate/headgate/contextkit"
)

const (
	// tenantReaders bounds the concurrent reads of one tenant's rows, as those of a file of SQLite are bounded.
	tenantReaders = 4
	// allReaders bounds those of all tenants: the other connections are for the application of events.
	allReaders = connections * 3 / 4
)

// readers bounds the connections that reads hold. A read waits for one of its tenant before it waits for one of
// another tenant, so that a tenant's slow reads occupy its own share of the connections.
type readers struct {
	all chan struct{} // holds a value for each running read

	mu      sync.Mutex
	tenants map[contextkit.TenantID]*tenantReads
}

// tenantReads are the reads of a tenant.
type tenantReads struct {
	slots chan struct{} // holds a value for each read that runs or waits for those of other tenants
	users int           // that run or wait
}

func newReaders() *readers {
	return &readers{all: make(chan struct{}, allReaders), tenants: map[contextkit.TenantID]*tenantReads{}}
}

// enter begins a read for a tenant, which ends when leave is called. Error: ctx's.
func (r *readers) enter(ctx context.Context, tenant contextkit.TenantID) (leave func(), err error) {
	r.mu.Lock()
	of := r.tenants[tenant]
	if of == nil {
		of = &tenantReads{slots: make(chan struct{}, tenantReaders)}
		r.tenants[tenant] = of
	}
	of.users++
	r.mu.Unlock()
	forget := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if of.users--; of.users == 0 {
			delete(r.tenants, tenant)
		}
	}
	select {
	case of.slots <- struct{}{}:
	case <-ctx.Done():
		forget()
		return nil, waited(ctx)
	}
	select {
	case r.all <- struct{}{}:
	case <-ctx.Done():
		<-of.slots
		forget()
		return nil, waited(ctx)
	}
	return func() {
		<-r.all
		<-of.slots
		forget()
	}, nil
}

// waited returns the error of a read whose context has ended before it began.
func waited(ctx context.Context) error {
	return fmt.Errorf("postgres: wait for other reads: %w", ctx.Err())
}
