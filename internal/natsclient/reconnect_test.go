package natsclient_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
)

// While the server is unreachable, a publish fails immediately: a message in a buffer of the client would be lost with
// the process, after its caller has gone on.
func TestConnect_NothingIsBufferedWhileTheServerIsAway(t *testing.T) {
	s := natstest.Server(t, &server.Options{StoreDir: t.TempDir()})
	away := make(chan struct{})
	conn, err := natsclient.Connect(
		s.ClientURL(),
		"test",
		nats.DisconnectErrHandler(func(*nats.Conn, error) { close(away) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Opts.MaxReconnect >= 0 {
		t.Errorf("gave up after %d attempts", conn.Opts.MaxReconnect)
	}
	s.Shutdown()
	select {
	case <-away:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
	if err := conn.Publish("events.acme.note.a", []byte("{}")); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("got %v, want no buffering", err)
	}
	if buffered, err := conn.Buffered(); err == nil && buffered > 0 {
		t.Errorf("%d bytes wait in the client", buffered)
	}
}
