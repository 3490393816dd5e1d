package backbone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// MaxMessageBytes bounds a message's payload and headers. It is above the
	// edge's request bound, so that whatever the edge accepts can be stored.
	MaxMessageBytes = 4 << 20
	// startTimeout bounds the embedded server's recovery of its streams.
	startTimeout = 60 * time.Second
)

// EmbeddedConfig says where and how an embedded server keeps its streams.
type EmbeddedConfig struct {
	// Dir is the directory of the file store.
	Dir string
	// LazySync lets the operating system decide when a write reaches the disk.
	// By default each write is synced before it is acknowledged, since a single
	// node has no replica to lose nothing with.
	LazySync bool
}

// Embedded is a NATS server in this process, without a listener.
type Embedded struct {
	server *server.Server
	lock   *os.File
}

// StartEmbedded starts a server and waits until it takes connections.
func StartEmbedded(ctx context.Context, config EmbeddedConfig) (_ *Embedded, err error) {
	file, err := lock(config.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // gives the lock back
		}
	}()
	s, err := server.NewServer(&server.Options{
		ServerName: "headgate",
		DontListen: true,
		JetStream:  true,
		StoreDir:   config.Dir,
		SyncAlways: !config.LazySync,
		MaxPayload: MaxMessageBytes,
		NoSigs:     true,
		NoLog:      true,
	})
	if err != nil {
		return nil, fmt.Errorf("backbone: start embedded NATS: %w", err)
	}
	s.Start()
	deadline := startTimeout
	if d, ok := ctx.Deadline(); ok {
		deadline = min(deadline, time.Until(d))
	}
	if !s.ReadyForConnections(deadline) {
		s.Shutdown()
		return nil, fmt.Errorf("backbone: embedded NATS was not ready within %v", deadline)
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		return nil, fmt.Errorf("backbone: embedded NATS could not open its store in %s", config.Dir)
	}
	return &Embedded{server: s, lock: file}, nil
}

// Connect returns a connection to the server that uses no socket.
func (e *Embedded) Connect(name string) (*nats.Conn, error) {
	conn, err := nats.Connect("", append(connectOptions(name), nats.InProcessServer(e.server))...)
	if err != nil {
		return nil, fmt.Errorf("backbone: connect to embedded NATS: %w", err)
	}
	return conn, nil
}

// Close stops the server and waits until its store is closed.
func (e *Embedded) Close() {
	e.server.Shutdown()
	e.server.WaitForShutdown()
	_ = e.lock.Close() // gives the lock back
}

// Connect returns a connection to the NATS servers at url that never stops
// trying to reconnect. options are those of the installation, such as its
// credentials.
func Connect(url, name string, options ...nats.Option) (*nats.Conn, error) {
	if url == "" {
		return nil, errors.New("backbone: no NATS url is configured")
	}
	conn, err := nats.Connect(url, append(connectOptions(name), options...)...)
	if err != nil {
		return nil, fmt.Errorf("backbone: connect to NATS: %w", err)
	}
	return conn, nil
}

// pingEvery is how often a server is asked for a sign of life, and pingsMissed how many it
// may owe before it is left for another: a host that is gone says nothing, and its
// connections stay as they are for minutes.
const (
	pingEvery   = 2 * time.Second
	pingsMissed = 2
)

func connectOptions(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(pingsMissed),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectBufSize(-1), // a publish while disconnected fails at once instead of being kept and forgotten
	}
}
