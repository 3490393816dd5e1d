package rpc

import (
	stdlog "log"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
)

// loggedError bounds an error's text in a log line, in encoded bytes.
const loggedError = 8 << 10

// An error may quote a request: its text in a log line is bounded, in every process.
func init() {
	zerolog.ErrorMarshalFunc = func(err error) any {
		if err == nil {
			return nil
		}
		return excerpt.Text(err.Error(), loggedError)
	}
}

// Identify adds the contract's ids to a log line: tokens, none of whose characters JSON
// escapes.
func Identify(event *zerolog.Event, rc *contextkit.RequestContext) *zerolog.Event {
	var room [contextkit.MaxIDLength + 2]byte
	token := func(name, id string) {
		event.RawJSON(name, append(append(append(room[:0], '"'), id...), '"'))
	}
	if !rc.TenantID.IsZero() {
		token("tenant", rc.TenantID.String())
	}
	token("correlation_id", rc.CorrelationID)
	token("trace_id", rc.TraceIDText())
	token("request_id", rc.RequestID)
	return event
}

// Took adds a duration to a log line, as "ms": milliseconds with three decimals. Formatting a float
// would take longer and claim more precision.
func Took(event *zerolog.Event, took time.Duration) *zerolog.Event {
	var room [24]byte
	us := took.Microseconds()
	text := append(strconv.AppendInt(room[:0], us/1000, 10), '.', '0'+byte(us/100%10), '0'+byte(us/10%10),
		'0'+byte(us%10))
	return event.RawJSON("ms", text)
}

// stdLogger adapts net/http's error log, which concerns clients, and is sampled.
func stdLogger(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(provoked(log.With().Str("source", "net/http").Logger().Level(zerolog.DebugLevel)), "", 0)
}
