//go:build !race

package rawtcp

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// conn is a connection with its own Read and Write.
type conn struct {
	*net.TCPConn

	read, write operation
}

func wrap(tcp *net.TCPConn) net.Conn {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return tcp // it is closed: its methods return errors
	}
	c := &conn{TCPConn: tcp}
	c.read.init(syscall.SYS_READ, raw.Read)
	c.write.init(syscall.SYS_WRITE, raw.Write)
	return c
}

// operation is one that a connection does again and again, one at a time.
type operation struct {
	trap uintptr
	wait func(try func(fd uintptr) (done bool)) error // until try has done it
	try  func(fd uintptr) (done bool)                 // made once: it is the same each time

	mu    sync.Mutex
	bytes []byte
	n     uintptr
	errno syscall.Errno
}

func (o *operation) init(trap uintptr, wait func(func(uintptr) bool) error) {
	o.trap, o.wait = trap, wait
	o.try = func(fd uintptr) bool {
		o.n, o.errno = 0, syscall.EINTR
		for o.errno == syscall.EINTR {
			o.n, _, o.errno = syscall.RawSyscall(
				o.trap, fd,
				uintptr(unsafe.Pointer(unsafe.SliceData(o.bytes))), //nolint:gosec // as package syscall does
				uintptr(len(o.bytes)),
			)
		}
		return o.errno != syscall.EAGAIN
	}
}

// do does it once with p. o.mu is held.
func (o *operation) do(p []byte) (int, error) {
	o.bytes = p
	err := o.wait(o.try)
	o.bytes = nil
	switch {
	case err != nil:
		return 0, err
	case o.errno != 0:
		return 0, o.errno
	}
	return int(o.n), nil
}

// Read implements [io.Reader].
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	n, err := c.read.do(p)
	if err != nil {
		return 0, c.explain("read", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements [io.Writer].
func (c *conn) Write(p []byte) (written int, err error) {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	for written < len(p) {
		n, err := c.write.do(p[written:])
		if err != nil {
			return written, c.explain("write", err)
		}
		written += n
	}
	return written, nil
}

// explain returns an error in the form of package net.
func (c *conn) explain(what string, err error) error {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // it comes as it is
		err = os.NewSyscallError(what, errno)
	}
	if known, ok := err.(*net.OpError); ok { //nolint:errorlint // it comes as it is
		err = known.Err
	}
	return &net.OpError{
		Op:     what,
		Net:    c.LocalAddr().Network(),
		Source: c.LocalAddr(),
		Addr:   c.RemoteAddr(),
		Err:    err,
	}
}
