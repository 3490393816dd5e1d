package natsclient

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Connect returns a connection to the NATS servers at url that never stops trying to reconnect.
// options are further options, such as credentials.
func Connect(url, name string, options ...nats.Option) (*nats.Conn, error) {
	if url == "" {
		return nil, errors.New("natsclient: no NATS url is configured")
	}
	conn, err := nats.Connect(url, append(ConnectOptions(name), options...)...)
	if err != nil {
		return nil, fmt.Errorf("natsclient: connect to NATS: %w", err)
	}
	return conn, nil
}

// A connection is lost when pingsMissed pings, one each pingEvery, have no answer.
const (
	pingEvery   = 2 * time.Second
	pingsMissed = 2
)

// ConnectOptions returns the options of every connection to NATS, whose name the server shows.
func ConnectOptions(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(pingsMissed),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a server that is being given its users refuses for a time
		nats.ReconnectWait(ReconnectWait),
		nats.ReconnectBufSize(-1), // a publish while disconnected fails immediately instead of being buffered and lost
	}
}

// ReconnectWait is the wait between two attempts to connect.
const ReconnectWait = 250 * time.Millisecond
