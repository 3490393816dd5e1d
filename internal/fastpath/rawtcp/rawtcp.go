// Package rawtcp reads and writes TCP connections by system calls that Go's scheduler is
// not told of.
//
// A socket never blocks: what it cannot do at once waits in the runtime's poller, outside
// of any call. Yet the scheduler takes each call for one that may block, watches it, and
// gives the processor of one that takes longer than some 20 µs, as a write over loopback
// does, to another thread. That costs a server of small messages more than the call
// (docs/decisions/0013-raw-system-calls.md).
//
// Elsewhere than on Linux, connections stay as they are. So they do under the race detector,
// which knows by package syscall's calls that what is read comes after what was written.
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
