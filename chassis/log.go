package chassis

import (
	stdlog "log"

	"github.com/headgate/headgate/contextkit"
	"github.com/rs/zerolog"
)

// Identify adds the contract's ids to a log line.
func Identify(event *zerolog.Event, rc contextkit.RequestContext) *zerolog.Event {
	if !rc.TenantID.IsZero() {
		event.Str("tenant", rc.TenantID.String())
	}
	return event.Str("correlation_id", rc.CorrelationID).Str("trace_id", rc.TraceID.String()).Str("request_id", rc.RequestID)
}

// stdLogger adapts net/http's complaints about clients.
func stdLogger(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(log.With().Str("source", "net/http").Logger().Level(zerolog.DebugLevel), "", 0)
}
