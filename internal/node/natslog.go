package node

import (
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// natsLog returns the options that log when the connection to NATS is lost and restored, and
// what the client library reports, which it would write to standard error as plain text.
func natsLog(log zerolog.Logger) []nats.Option {
	return []nats.Option{
		nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
			if conn.IsClosed() {
				return // the process ends
			}
			log.Warn().Err(err).Msg("the connection to NATS is lost; it is restored when a server answers")
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			log.Warn().Str("server", conn.ConnectedUrlRedacted()).Msg("the connection to NATS is restored")
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			line := log.Warn().Err(err)
			if sub != nil {
				line = line.Str("subject", sub.Subject)
			}
			line.Msg("NATS client")
		}),
	}
}
