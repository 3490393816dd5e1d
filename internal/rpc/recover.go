package rpc

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/excerpt"
)

// provokedLines bounds the lines per second of each kind that clients can cause without a valid call.
const provokedLines = 10

// provoked returns a log for one kind of lines that clients can cause as often as they like: further lines are left
// out, and metrics or audit records count the occasions.
func provoked(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: provokedLines, Period: time.Second})
}

// Catch ends a panic of a call with [ErrUnfinished], so that one call's bug does not end the process's other calls: it
// logs the panic with its stack and counts it. It must be deferred itself.
func (s *Server) Catch(procedure string, err *error) {
	switch r := recover(); r {
	case nil:
	case http.ErrAbortHandler:
		panic(r) // net/http's own way to give up a response
	default:
		s.panicked(procedure, r)
		*err = ErrUnfinished
	}
}

func (s *Server) panicked(procedure string, r any) {
	s.Metrics.panics.Inc()
	s.panics.Error().Str("procedure", procedure).Str("panic", excerpt.Text(fmt.Sprint(r), excerpt.Message)).
		Bytes("stack", debug.Stack()).Msg("handler panicked")
}

// recovered makes a panic of a handler an error, see [Server.Catch].
func (s *Server) recovered(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		defer s.Catch(spec.Procedure, &err)
		return next(ctx, spec, stream)
	}
}

// recoveredHTTP answers a request whose handler panics outside of a call with status 500, or aborts an answer that has
// begun.
func (s *Server) recoveredHTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch caught := recover(); caught {
			case nil:
			case http.ErrAbortHandler:
				panic(caught)
			default:
				s.panicked("", caught)
				if a, ok := w.(*answering); !ok || a.started {
					panic(http.ErrAbortHandler)
				}
				clear(w.Header())
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Cache-Control", "no-store")
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = w.Write(unfinishedJSON) // the client is gone if this fails
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// unfinishedJSON is [ErrUnfinished] as an error of Connect.
var unfinishedJSON = []byte(`{"code":"internal","message":"` + ErrUnfinished.Message() + `"}`)
