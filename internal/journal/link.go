package journal

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"
)

// errLinkLost is why what was sent ends whose answer cannot come any more.
var errLinkLost = errors.New("the connection to NATS was lost before the answer")

// link has a context that ends when the connection to NATS is lost, or an embedded server stops
// storing: earlier requests are not answered then.
type link struct {
	mu sync.Mutex
	//nolint:containedctx // it is the connection's, and ends with it
	ctx  context.Context
	lose context.CancelCauseFunc
}

// watch returns the link of a connection. Its goroutine ends when the connection is
// closed.
func watch(conn *nats.Conn) *link {
	l := &link{}
	l.renew()
	changes := conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	if conn.IsClosed() {
		l.lose(errLinkLost)
		return l
	}
	go func() {
		for status := range changes {
			l.interrupt()
			if status == nats.CLOSED {
				conn.RemoveStatusListener(changes)
			}
		}
	}()
	return l
}

// interrupt ends the requests that are not answered yet.
func (l *link) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose(errLinkLost)
	l.renew()
}

func (l *link) renew() { l.ctx, l.lose = context.WithCancelCause(context.Background()) }

// bind returns ctx, ended when the link is lost too; release frees it.
func (l *link) bind(ctx context.Context) (bound context.Context, release func()) {
	l.mu.Lock()
	up := l.ctx
	l.mu.Unlock()
	bound, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(up, func() { cancel(errLinkLost) })
	return bound, func() {
		stop()
		cancel(nil)
	}
}
