package natsserver

import (
	"fmt"
	"sync/atomic"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

// serverLines and serverBurst bound the lines of an embedded server, per second and at a time: a
// failing disk causes one for each message.
const serverLines, serverBurst = 2, 20

// serverLog writes an embedded server's warnings and errors as log lines. It implements
// [server.Logger].
type serverLog struct {
	log   zerolog.Logger
	rate  *rate.Limiter
	fatal atomic.Pointer[string] // why the server could not start
}

func newServerLog(log zerolog.Logger) *serverLog {
	return &serverLog{
		log:  log.With().Str("from", "nats-server").Logger(),
		rate: rate.NewLimiter(serverLines, serverBurst),
	}
}

// why returns the logged reason why the server could not start.
func (l *serverLog) why() string {
	if text := l.fatal.Load(); text != nil {
		return *text
	}
	return "the server has logged no reason"
}

func (l *serverLog) write(level zerolog.Level, format string, values []any) {
	if line := l.log.WithLevel(level); line.Enabled() && l.rate.Allow() {
		line.Msgf(format, values...)
	}
}

// Warnf logs a warning.
func (l *serverLog) Warnf(format string, values ...any) { l.write(zerolog.WarnLevel, format, values) }

// Errorf logs an error.
func (l *serverLog) Errorf(format string, values ...any) { l.write(zerolog.ErrorLevel, format, values) }

// Fatalf logs an error: the server's caller decides whether the process ends.
func (l *serverLog) Fatalf(format string, values ...any) {
	text := fmt.Sprintf(format, values...)
	l.fatal.Store(&text)
	l.write(zerolog.ErrorLevel, "%s", []any{text})
}

// Noticef logs the server's notices of its start and end at level debug.
func (l *serverLog) Noticef(format string, values ...any) {
	l.write(zerolog.DebugLevel, format, values)
}

// Debugf discards a message.
func (*serverLog) Debugf(string, ...any) {}

// Tracef discards a message.
func (*serverLog) Tracef(string, ...any) {}
