package natsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/disk"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (

	// startTimeout bounds the embedded server's recovery of its streams.
	startTimeout = 60 * time.Second
)

// Config configures an embedded server.
type Config struct {
	// Dir is the directory of the file store.
	Dir string
	// LazySync lets the operating system decide when a write reaches the disk. By default each
	// write is synced before it is acknowledged, since a single node has no replica.
	LazySync bool
	// Log receives the server's warnings and errors, and those of [Embedded.Run]. The zero value
	// discards them.
	Log *zerolog.Logger
}

// Embedded is a NATS server in this process, without a listener. While [Embedded.Run] runs, the
// server is restarted when it has stopped storing messages and there is room on its disk again.
// Its methods may be called concurrently.
type Embedded struct {
	config Config
	log    zerolog.Logger
	lock   *os.File
	anchor *disk.Anchor
	events os.FileInfo // the directory of EVENTS, nil until it exists; after the start only Run uses it

	lost atomic.Bool // the directory has disappeared

	mu     sync.Mutex
	server *server.Server // nil during a restart
	closed bool
}

// Start starts a server and waits until it takes connections.
func Start(ctx context.Context, config Config) (*Embedded, error) {
	file, err := lock(config.Dir)
	if err != nil {
		return nil, err
	}
	e := &Embedded{
		config: config,
		log:    zerolog.Nop(),
		lock:   file,
		anchor: disk.NewAnchor(file),
	}
	if config.Log != nil {
		e.log = *config.Log
	}
	if e.server, err = e.start(ctx); err != nil {
		return nil, errors.Join(err, file.Close()) // which gives the lock back
	}
	if found, err := e.statEvents(); err == nil {
		e.events = found
	}
	return e, nil
}

// start starts a server over the directory and waits until it takes connections.
func (e *Embedded) start(ctx context.Context) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "headgate",
		DontListen: true,
		JetStream:  true,
		StoreDir:   e.config.Dir,
		// The disk is the bound. The default is a share of the free space at the start, which
		// refuses messages although there is room.
		JetStreamMaxStore: maxStore,
		// By default the server refuses more than a thousand consumers of a stream.
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
		SyncAlways:      !e.config.LazySync,
		MaxPayload:      streams.MaxMessageBytes,
		NoSigs:          true,
	})
	if err != nil {
		return nil, fmt.Errorf("natsserver: start embedded NATS: %w", err)
	}
	lines := newServerLog(e.log)
	s.SetLogger(lines, false, false)
	s.Start()
	deadline := startTimeout
	if d, ok := ctx.Deadline(); ok {
		deadline = min(deadline, time.Until(d))
	}
	if !s.ReadyForConnections(deadline) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("natsserver: embedded NATS was not ready within %v", deadline)
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf(
			"natsserver: embedded NATS could not open its store in %s: %s",
			e.config.Dir,
			lines.why(),
		)
	}
	return s, nil
}

// maxStore bounds the bytes of an embedded server's streams; it exceeds every disk.
const maxStore = 1 << 60

// errNoServer is the error of connecting during a restart of the server.
var errNoServer = errors.New("natsserver: the embedded NATS server is being started")

// InProcessConn returns a connection to the current server. It implements
// [nats.InProcessConnProvider].
func (e *Embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	if s == nil {
		return nil, errNoServer
	}
	return s.InProcessConn()
}

// Connect returns a connection to the server that uses no socket. It is restored
// automatically when the server is restarted.
func (e *Embedded) Connect(name string, options ...nats.Option) (*nats.Conn, error) {
	conn, err := nats.Connect(
		"",
		append(append(natsclient.ConnectOptions(name), options...), nats.InProcessServer(e))...)
	if err != nil {
		return nil, fmt.Errorf("natsserver: connect to embedded NATS: %w", err)
	}
	return conn, nil
}

// Close stops the server and waits until its store is closed. Run must have ended.
func (e *Embedded) Close() {
	e.stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		_ = e.lock.Close() // gives the lock back
	}
}

// stop stops the server, if there is one.
func (e *Embedded) stop() {
	e.mu.Lock()
	s := e.server
	e.server = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// pingEvery is the interval of pings to a server, and pingsMissed the number of unanswered ones
// after which the client connects to another: connections to a failed host stay open for minutes.
const ()
