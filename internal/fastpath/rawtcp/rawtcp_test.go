package rawtcp_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/headgate/headgate/internal/fastpath/rawtcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// implementation makes connections of package rawtcp, or of package net.
type implementation struct {
	conn     func(net.Conn) net.Conn
	listener func(net.Listener) net.Listener
}

// eachImplementation runs a test over both.
func eachImplementation(t *testing.T, test func(t *testing.T, of implementation)) {
	t.Helper()
	t.Run("rawtcp", func(t *testing.T) { test(t, implementation{rawtcp.Conn, rawtcp.Listener}) })
	t.Run("net", func(t *testing.T) {
		test(t, implementation{
			func(c net.Conn) net.Conn { return c },
			func(l net.Listener) net.Listener { return l },
		})
	})
}

// pair returns both ends of a connection.
func (i implementation) pair() (a, b net.Conn, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	listener := i.listener(l)
	defer listener.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, nil, err
	}
	if b, err = listener.Accept(); err != nil {
		return nil, nil, nil, errors.Join(err, dialed.Close())
	}
	a = i.conn(dialed)
	return a, b, func() {
		_ = a.Close()
		_ = b.Close()
	}, nil
}

func (i implementation) ends(t *testing.T) (a, b net.Conn) {
	t.Helper()
	a, b, stop, err := i.pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return a, b
}

func TestConn_IsANetConn(t *testing.T) {
	eachImplementation(t, func(t *testing.T, of implementation) { nettest.TestConn(t, of.pair) })
}

func TestConn_WritesMoreThanTheKernelBuffers(t *testing.T) {
	eachImplementation(t, func(t *testing.T, of implementation) {
		a, b := of.ends(t)
		sent := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB
		failed := make(chan error, 1)
		go func() {
			_, err := a.Write(sent)
			failed <- errors.Join(err, a.Close())
		}()
		got, err := io.ReadAll(b)
		if err := errors.Join(err, <-failed); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came of %d, or others", len(got), len(sent))
		}
	})
}

func TestConn_ErrorsEqualPackageNets(t *testing.T) {
	eachImplementation(t, func(t *testing.T, of implementation) {
		expire := func(t *testing.T, c net.Conn) {
			if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		shut := func(t *testing.T, c net.Conn) {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		reset := func(t *testing.T, peer net.Conn) {
			if err := peer.(interface{ SetLinger(seconds int) error }).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			shut(t, peer)
		}
		for _, tc := range []struct {
			name   string
			before func(t *testing.T, c, peer net.Conn)
			read   error
			write  error // the last of several: the first may not know yet
		}{
			{
				"a deadline", func(t *testing.T, c, _ net.Conn) { expire(t, c) }, os.ErrDeadlineExceeded,
				os.ErrDeadlineExceeded,
			},
			{"closed here", func(t *testing.T, c, _ net.Conn) { shut(t, c) }, net.ErrClosed, net.ErrClosed},
			{"closed there", func(t *testing.T, _, peer net.Conn) { shut(t, peer) }, io.EOF, syscall.EPIPE},
			{"reset there", func(t *testing.T, _, peer net.Conn) { reset(t, peer) }, syscall.ECONNRESET, syscall.EPIPE},
		} {
			t.Run(tc.name, func(t *testing.T) {
				c, peer := of.ends(t)
				tc.before(t, c, peer)
				_, err := c.Read(make([]byte, 1))
				if !errors.Is(err, tc.read) {
					t.Errorf("Read: %v, want %v", err, tc.read)
				}
				var failed *net.OpError
				if !errors.Is(tc.read, io.EOF) &&
					(!errors.As(err, &failed) || failed.Op != "read" ||
						failed.Source.String() != c.LocalAddr().String()) {
					t.Errorf("Read returns an error without operation and address: %#v", err)
				}
				for range 1000 {
					if _, err = c.Write([]byte("x")); errors.Is(err, tc.write) {
						break
					}
				}
				if !errors.Is(err, tc.write) {
					t.Errorf("Write: %v, want %v", err, tc.write)
				}
				if timeout, ok := errors.AsType[net.Error](err); !ok ||
					timeout.Timeout() != errors.Is(tc.write, os.ErrDeadlineExceeded) {
					t.Errorf("Write returns an error that is no timeout: %#v", err)
				}
			})
		}
	})
}

func TestConn_ReadAndWriteAllocateNothing(t *testing.T) {
	eachImplementation(t, func(t *testing.T, of implementation) {
		if testing.Short() {
			t.Skip("-short goes with the race detector")
		}
		a, b := of.ends(t)
		message, got := []byte("message"), make([]byte, 7)
		if objects := testing.AllocsPerRun(100, func() {
			if _, err := a.Write(message); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b, got); err != nil {
				t.Fatal(err)
			}
		}); objects > 0 {
			t.Errorf("%v objects", objects)
		}
	})
}

// BenchmarkEcho sends a small message there and back.
func BenchmarkEcho(b *testing.B) {
	echo := func(b *testing.B, conn func(net.Conn) net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		here, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		there, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		here, there = conn(here), conn(there)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer there.Close()
			message := make([]byte, 100)
			for {
				if _, err := io.ReadFull(there, message); err != nil {
					return
				}
				if _, err := there.Write(message); err != nil {
					return
				}
			}
		}()
		message := make([]byte, 100)
		for b.Loop() {
			if _, err := here.Write(message); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(here, message); err != nil {
				b.Fatal(err)
			}
		}
		_ = here.Close()
		<-ended
	}
	b.Run("net", func(b *testing.B) { echo(b, func(c net.Conn) net.Conn { return c }) })
	b.Run("rawtcp", func(b *testing.B) { echo(b, rawtcp.Conn) })
}
