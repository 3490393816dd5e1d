package node

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
)

// bus is JetStream over the process's connection, with the monitor of both, which readiness and metrics of the roles
// use and which one layer of the process runs, and with the state of the streams' storage.
type bus struct {
	jetstream.JetStream

	monitor *natshealth.Monitor
	storage *natshealth.Storage
	// embedded is the NATS server of this process; nil: the server is another process.
	embedded *natsserver.Embedded
	// certificates are the files that the process uses.
	certificates certificates
}

// collectors returns the metrics of the bus.
func (b *bus) collectors() []prometheus.Collector {
	if b.embedded != nil {
		return []prometheus.Collector{b.monitor, b.storage, b.embedded}
	}
	return []prometheus.Collector{b.monitor, b.storage, b.certificates}
}

// run monitors the connection, JetStream and an embedded server, until ctx ends.
func (b *bus) run() rpc.Layer {
	if b.embedded != nil {
		return rpc.Layer{b.monitor.Run, func(ctx context.Context) error { return b.embedded.Run(ctx, b.storage) }}
	}
	return rpc.Layer{b.monitor.Run}
}

// Storage returns the known state of the streams' storage.
func (b *bus) Storage() *natshealth.Storage { return b.storage }

// openBus returns the bus over a connection to a NATS server: embedded, or one of another process if that is nil.
func openBus(conn *nats.Conn, embedded *natsserver.Embedded, log zerolog.Logger) (*bus, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	storage := natshealth.NewStorage(log)
	return &bus{
		JetStream: storage.Observe(js),
		monitor:   natshealth.NewMonitor(js, log),
		storage:   storage,
		embedded:  embedded,
	}, nil
}
