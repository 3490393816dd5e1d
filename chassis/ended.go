package chassis

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
)

// Ended is a call that has ended.
type Ended struct {
	// Procedure and Protocol are as Connect names them.
	Procedure, Protocol string
	// Started is when it began, and Took how long it took.
	Started time.Time
	Took    time.Duration
	// Err is how it ended.
	Err error
}

// OwnFault says that it failed by the process's fault or that of those behind it.
func (e Ended) OwnFault() bool { return ownFault(e.Err) }

// tellEnded tells the configuration's Ended, if there is one.
func (s *Server) tellEnded(next connect.ServerFunc) connect.ServerFunc {
	if s.config.Ended == nil {
		return next
	}
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if !counts(spec.Procedure) {
			return next(ctx, spec, stream)
		}
		info, _ := connect.CallInfoForServerContext(ctx)
		rc := contextkit.In(ctx)
		err := next(ctx, spec, stream)
		s.config.Ended(*rc, Ended{Procedure: spec.Procedure, Protocol: info.Protocol, Started: rc.Began(), Took: time.Since(rc.Began()), Err: err})
		return err
	}
}
