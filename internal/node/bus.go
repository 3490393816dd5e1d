package node

import (
	"github.com/headgate/headgate/backbone"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// bus is JetStream over the process's connection, with the monitor of both, which the roles'
// readiness and metrics show and which one layer of the process runs.
type bus struct {
	jetstream.JetStream

	monitor *backbone.Monitor
}

// openBus returns the bus over a connection.
func openBus(conn *nats.Conn, log zerolog.Logger) (*bus, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	return &bus{JetStream: js, monitor: backbone.NewMonitor(js, log)}, nil
}
