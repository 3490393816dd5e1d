package gateway

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/internal/rpc"
)

// forwardStream copies messages in both directions until the node ends the stream.
func (g *Gateway) forwardStream(ctx context.Context, call *Call) error {
	call.Attempts++
	pass, wait, ok := g.enter(call, call.admittedAt())
	if !ok {
		return breakerOpenError(call, wait)
	}
	// The breaker gets the first known outcome, or Unknown at the end if there is none.
	known := false
	done := func(outcome breaker.Outcome) {
		if !known {
			known = true
			pass.Done(outcome)
		}
	}
	defer done(breaker.Unknown)
	ctx, release := g.liveContext(ctx, call)
	defer release()
	stream, err := g.open(ctx, call)
	if err != nil {
		done(outcome(ctx, call, call.admittedAt(), err))
		return asLocalError(ctx, err)
	}
	defer func() { _ = stream.Close() }() // Receive returns its error
	// A node may end the stream while the client still sends. The request pump then ends when the
	// handler has returned and Receive of the edge's stream fails; waiting for the pump here would
	// wait for the client.
	pumped := make(chan requestsEnd, 1)
	go func() {
		sent := g.pumpRequests(call, stream)
		pumped <- sent
		if sent.err != nil {
			_ = stream.Close() // ends the answers
		}
	}()
	g.explain(ctx, call, nil)
	err = call.pumpAnswers(stream, done)
	select {
	case sent := <-pumped:
		if sent.err != nil { // which has closed the stream: the node is not the cause
			call.denied, call.Resource = sent.denied, sent.resource
			return sent.err
		}
	default:
	}
	if err != nil {
		done(outcome(ctx, call, call.admittedAt(), err))
	}
	if err == nil {
		return nil
	}
	if rpc.Unread(call.Stream) {
		return rpc.ErrUnread
	}
	if ended := call.endCause(ctx); ended != nil {
		return ended
	}
	if late := rpc.Late(ctx); late != nil {
		return late
	}
	return asLocalError(ctx, err)
}

// pumpAnswers passes the node's messages to the client until the node ends the stream.
func (c *Call) pumpAnswers(stream connect.ClientStream, done func(breaker.Outcome)) error {
	answer := &frame.Frame{Program: c.Method.Output, Lend: true}
	defer answer.Release()
	for first := true; ; first = false {
		err := stream.Receive(answer)
		if first || err != nil {
			edge.SetHeaders(c.Stream, func() { passMetadata(c.Info, &c.upstream) })
		}
		if errors.Is(err, io.EOF) {
			done(breaker.Answered)
			return nil
		}
		if err != nil {
			return err
		}
		done(breaker.Answered)
		if err := c.Stream.Send(answer); err != nil {
			return err
		}
	}
}

// requestsEnd is the result of the request pump.
type requestsEnd struct {
	err error
	// The reason and the resource of a denial. The pump does not write them to the call, which may
	// end concurrently.
	denied   Reason
	resource string
}

// pumpRequests is [Call.pumpRequests]; a panic is its error, as in [Gateway.run].
func (g *Gateway) pumpRequests(call *Call, stream connect.ClientStream) (sent requestsEnd) {
	defer g.server.Catch(call.Method.Spec.Procedure, &sent.err)
	return call.pumpRequests(stream)
}

// pumpRequests sends the first message, if there is one, and the messages after it. Every message
// of a stream must be for the stream's tenant, and for resources that the principal's right covers.
func (c *Call) pumpRequests(stream connect.ClientStream) requestsEnd {
	tenant := c.Tenant.String()
	if c.First == nil {
		if err := stream.SendHeaders(); err != nil {
			return requestsEnd{} // the node's verdict is received
		}
	} else {
		if c.Method.TenantField != 0 {
			tenant, _ = c.First.Text(c.Method.TenantField, "") // parsed before, without error
		}
		if err := stream.Send(c.First); err != nil {
			return requestsEnd{} // the node has ended the call; its verdict is received
		}
		c.releaseMessage()
	}
	if c.Method.Spec.StreamType&connect.StreamTypeClient == 0 {
		return requestsEnd{err: stream.CloseSend()}
	}
	further := &Call{
		Method:    c.Method,
		Info:      c.Info,
		Stream:    c.Stream,
		Principal: c.Principal,
		First:     c.First,
		Resource:  c.Resource,
	}
	err := further.pump(stream, tenant, &c.charge)
	return requestsEnd{err: err, denied: further.denied, resource: further.Resource}
}

// pump sends the messages after the first. Each is charged to held until it is sent.
func (c *Call) pump(to connect.ClientStream, tenant string, held *charge) error {
	for {
		message := &frame.Frame{Program: c.Method.Input}
		err := c.read(message)
		if err == nil {
			err = held.chargeMessage(message.Len())
		}
		switch {
		case errors.Is(err, io.EOF):
			return to.CloseSend()
		case err != nil:
			return err
		}
		if err := c.checkTenant(message, tenant); err != nil {
			return err
		}
		if err := c.authorize(message); err != nil {
			return err
		}
		if err := to.Send(message); err != nil {
			return nil //nolint:nilerr // the node has ended the call; its verdict is received
		}
		held.releaseMessage()
	}
}

// checkTenant checks that a further message of a stream is for the stream's tenant, and fills in an
// absent tenant field.
func (c *Call) checkTenant(message *frame.Frame, tenant string) error {
	if c.Method.TenantField == 0 {
		return nil
	}
	switch named, err := message.Text(c.Method.TenantField, tenant); {
	case err != nil:
		return c.fieldError(c.Method.TenantField, err)
	case named == "":
		message.AppendText(c.Method.TenantField, tenant)
	case named != tenant:
		return c.denyTenant("a message of the stream names another tenant")
	}
	return nil
}
