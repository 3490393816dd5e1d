package upstream

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// Watched returns an opener that gives each call of next, and so each attempt of a retried call,
// its own span, and calls asked when the call has ended. Calls of traces that are not sampled pass
// unchanged.
func Watched(next Opener, asked rpc.AskedFunc) Opener { return watched{next, asked} }

type watched struct {
	next  Opener
	asked rpc.AskedFunc
}

// Open implements [Opener].
func (w watched) Open(
	ctx context.Context, info *connect.CallInfo, header grpcmeta.Header,
) (connect.ClientStream, error) {
	rc, sampled := rpc.Sampled(ctx)
	if !sampled {
		return w.next.Open(ctx, info, header)
	}
	span, began, procedure, endpoint := contextkit.NewSpanID(), time.Now(), info.Spec.Procedure, info.PeerAddr
	stream, err := w.next.Open(ctx, info, spanHeader{header, span})
	protocol := info.Protocol
	return rpc.WatchStream(stream, err, info.Spec.StreamType, func(err error) {
		w.asked(*rc, rpc.Asked{
			Ended: rpc.Ended{
				Outcome: rpc.Outcome{
					Procedure: procedure,
					Protocol:  protocol,
					Started:   began,
					Took:      time.Since(began),
					Err:       err,
				},
				Server: endpoint,
			},
			Span: span,
		})
	})
}

// spanHeader replaces the parent span in the transport contract of a header.
type spanHeader struct {
	grpcmeta.Header

	span contextkit.SpanID
}

// WriteHeader implements [grpcmeta.Header].
func (h spanHeader) WriteHeader(ctx context.Context, to *grpcmeta.Fields) error {
	if rc, ok := contextkit.FromContext(ctx); ok {
		rc.SpanID = h.span
		ctx = contextkit.NewContext(ctx, rc)
	}
	return h.Header.WriteHeader(ctx, to)
}
