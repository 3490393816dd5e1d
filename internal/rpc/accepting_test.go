package rpc

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
)

// exhausted is a listener whose Accept fails while it has no files.
type exhausted struct {
	net.Listener

	err error
}

func (l *exhausted) Accept() (net.Conn, error) { return nil, l.err }

func TestAccepting_ExhaustionMakesNotReadyAndIsLoggedOncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := &accepting{failures: NewMetrics("x").accepts, log: zerolog.New(&log)}
		under := &exhausted{}
		l := a.listener(under)
		ready := a.ready(func(context.Context, contextkit.TenantID) error { return nil })
		now := func() error { return ready(t.Context(), contextkit.TenantID{}) }
		for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE} {
			log.Reset()
			under.err = &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", errno)}
			for range 10 {
				if _, err := l.Accept(); err == nil {
					t.Fatal("accepted")
				}
				if err := now(); err == nil || !strings.Contains(err.Error(), "too many open files") {
					t.Errorf("%v: %v", errno, err)
				}
				time.Sleep(time.Second)
			}
			under.err = nil
			if _, err := l.Accept(); err != nil { // one that succeeds between failures
				t.Fatal(err)
			}
			time.Sleep(acceptQuiet)
			if err := now(); err != nil {
				t.Errorf("%v after connections are accepted", err)
			}
			if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "too many open files") ||
				!strings.Contains(text, "accepted again") {
				t.Errorf("lines:\n%s", text)
			}
		}
		under.err = syscall.ECONNABORTED
		if _, err := l.Accept(); err == nil || now() != nil {
			t.Errorf("other error counted: %v", now())
		}
	})
}
