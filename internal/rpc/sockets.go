package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Sockets are bound addresses that a process passes from the servers of [NewWaiting] to the servers
// that take calls, without closing them: clients never find an address closed. It is not for
// concurrent use.
type Sockets struct {
	bound []*socket
	taken bool

	lent   sync.WaitGroup // servers that serve bound addresses
	recall []func()       // end these servers
}

// Taken reports whether a server has taken one of the addresses.
func (s *Sockets) Taken() bool { return s.taken }

type socket struct {
	addr   string // as asked for
	tcp    *net.TCPListener
	shared *shared // the last listener that was lent; nil: none
}

// Bind binds addr (host:port), and returns the bound address; for port 0 the system chooses the port. Servers take the
// sockets of equal addresses in the order of Bind.
func (s *Sockets) Bind(ctx context.Context, addr string) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return "", errors.Join(fmt.Errorf("%s is a %T", addr, listener), listener.Close())
	}
	s.bound = append(s.bound, &socket{addr: addr, tcp: tcp})
	return tcp.Addr().String(), nil
}

// Lend makes a server of [NewWaiting] serve its address, which is bound, until another server takes an address or Close
// is called.
func (s *Sockets) Lend(ctx context.Context, waiting *Server) error {
	if err := waiting.Listen(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.recall = append(s.recall, cancel)
	s.lent.Go(func() {
		if err := waiting.Serve(ctx); err != nil {
			waiting.log.Error().Err(err).Str("address", waiting.Addr()).Msg(
				"serving the address failed while the process starts",
			)
		}
	})
	return nil
}

// yield ends the servers of Lend, and waits for their ends.
func (s *Sockets) yield() {
	for _, end := range s.recall {
		end()
	}
	s.lent.Wait()
	s.recall = nil
}

// take returns a listener at addr: the bound one, which is the caller's from then on, or a
// new one.
func (s *Sockets) take(ctx context.Context, addr string) (net.Listener, error) {
	if s != nil {
		s.yield()
		for i, bound := range s.bound {
			if bound.addr == addr && bound.free() {
				s.taken, s.bound = true, slices.Delete(s.bound, i, i+1)
				return bound.tcp, bound.tcp.SetDeadline(time.Time{})
			}
		}
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

// lend returns a listener at addr that leaves the address bound when it is closed.
func (s *Sockets) lend(_ context.Context, addr string) (net.Listener, error) {
	for _, bound := range s.bound {
		if bound.addr == addr && bound.free() {
			bound.shared = &shared{TCPListener: bound.tcp}
			return bound.shared, bound.tcp.SetDeadline(time.Time{})
		}
	}
	return nil, fmt.Errorf("%s is not bound", addr)
}

func (s *socket) free() bool { return s.shared == nil || s.shared.closed.Load() }

// Close ends the servers of Lend, and closes the addresses that no server has taken.
func (s *Sockets) Close() error {
	s.yield()
	var errs []error
	for _, bound := range s.bound {
		errs = append(errs, bound.tcp.Close())
	}
	s.bound = nil
	return errors.Join(errs...)
}

// shared is a listener that leaves its address bound when it is closed.
type shared struct {
	*net.TCPListener

	closed atomic.Bool
}

// Accept implements [net.Listener].
func (l *shared) Accept() (net.Conn, error) {
	conn, err := l.TCPListener.Accept()
	if err != nil && l.closed.Load() {
		return nil, net.ErrClosed
	}
	return conn, err
}

// Close implements [net.Listener]: it ends Accept.
func (l *shared) Close() error {
	if !l.closed.CompareAndSwap(false, true) {
		return nil
	}
	return l.SetDeadline(time.Unix(1, 0))
}
