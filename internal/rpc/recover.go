package rpc

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/excerpt"
)

// Recover turns a handler's panic into INTERNAL, logged with its stack, so that
// one call's bug does not end the process's other calls.
func Recover(log zerolog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
			defer func() {
				switch r := recover(); r {
				case nil:
				case http.ErrAbortHandler:
					panic(r) // net/http's own way to give up a response
				default:
					log.Error().Str("procedure", spec.Procedure).Str(
						"panic", excerpt.Text(fmt.Sprint(r), excerpt.Message),
					).Bytes("stack", debug.Stack()).Msg("handler panicked")
					err = ErrUnfinished
				}
			}()
			return next(ctx, spec, stream)
		}
	}
}
