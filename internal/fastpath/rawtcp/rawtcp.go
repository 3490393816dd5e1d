// Package rawtcp reads and writes TCP connections by raw system calls, which Go's scheduler does not
// monitor.
//
// The sockets are non-blocking: an operation that would block waits in the runtime's poller. For an
// ordinary system call the scheduler assumes that it may block, monitors it, and gives the processor of
// a call that takes longer than about 20 µs, as a write over loopback does, to another thread. For a
// server of small messages that costs more than the call (ADR-0013).
//
// On other systems than Linux connections are not wrapped, nor under the race detector, which learns
// from package syscall's calls that a read comes after the write.
package rawtcp

import "net"

// Conn returns a connection like c, which is not to be used itself any more; c if it is
// none of TCP.
func Conn(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	return wrap(tcp)
}

// Listener returns a listener like l, whose connections are those of [Conn].
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept implements [net.Listener].
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Conn(c), nil
}
