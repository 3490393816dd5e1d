package upstream

import (
	"context"
	"sync"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis/grpcmeta"
	"github.com/headgate/headgate/gateway/upstream/h2"
)

// outgoing is a call that has a channel.
type outgoing struct {
	ctx     context.Context //nolint:containedctx // the stream is the call; ends with it
	channel *channel
	info    *connect.CallInfo
	header  grpcmeta.Header
}

// lists are of header fields, to be used again.
var lists = sync.Pool{New: func() any { return new(grpcmeta.Fields) }}

// begin opens the call with its headers.
func (o *outgoing) begin(request h2.Request) (*h2.Stream, error) {
	to, _ := lists.Get().(*grpcmeta.Fields)
	defer func() {
		to.Reset() // what is in them is not to be kept
		lists.Put(to)
	}()
	err := o.header.WriteHeader(o.ctx, to)
	if err != nil {
		return nil, err
	}
	request.Path = o.info.Spec.Procedure
	if request.Fields, err = to.List(); err != nil {
		return nil, err
	}
	return o.channel.conn.Open(o.ctx, request)
}
