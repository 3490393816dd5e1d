package upstream

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// outgoing is a call with its channel.
type outgoing struct {
	ctx     context.Context //nolint:containedctx // the stream is the call; ends with it
	channel *channel
	info    *connect.CallInfo
	header  grpcmeta.Header
	meter   channels.Meter // of the answer's memory
}

// begin begins the call by sending its headers.
func (o *outgoing) begin(request channels.Request) (callStream, error) {
	fields, err := grpcmeta.Write(o.ctx, o.header)
	if err != nil {
		return nil, err
	}
	defer fields.Free()
	request.Path, request.Fields, request.Meter = o.info.Spec.Procedure, fields.List(), o.meter
	return o.channel.conn.Open(o.ctx, request)
}
