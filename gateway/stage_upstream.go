package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// maxAttempts bounds the upstream calls of one call.
	maxAttempts = 3
	// firstBackoff is the longest wait before the second attempt; each further
	// one doubles it. Waits have full jitter.
	firstBackoff = 20 * time.Millisecond
	// maxPushback is the longest wait that a node may ask for and that the gateway waits itself. A
	// longer one is the client's: a call that waits occupies its tenant's share.
	maxPushback = time.Second
	// retryAfter is what a client is told to wait when no node is ready, and retryRefused when
	// the nodes say why.
	retryAfter, retryRefused = 500 * time.Millisecond, 5 * time.Second
)

// route finds the node that answers.
func (g *Gateway) route(ctx context.Context, call *Call) (context.Context, error) {
	if call.Method.NodeField != 0 {
		if node, err := g.operated(call); err != nil || node.ID != "" {
			call.Node, call.Forced = node, true
			return ctx, err
		}
	}
	node, ok := g.routes.Lookup(call.Method.Upstream, call.Tenant)
	if !ok {
		return ctx, g.noNodeReady(call.Method.Upstream)
	}
	call.Node = node
	return ctx, nil
}

// noNodeReady returns the error of a call that no node of the kind takes, with what the nodes want
// clients to be told.
func (g *Gateway) noNodeReady(kind string) error {
	if refusal := g.routes.Refusal(kind); refusal != "" {
		return rpc.WithDetails(connect.Errorf(connect.CodeUnavailable, "no %s node is ready: %s; try again later", kind, excerpt.Text(refusal, excerpt.Name)),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryRefused)})
	}
	return rpc.WithDetails(connect.Errorf(connect.CodeUnavailable, "no %s node is ready: try again in a moment", kind),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

// operated returns the node that the request names, or the only one of its kind;
// none when any will do. It need not be ready, and is called whatever its
// breaker says: the call is there to help it.
func (g *Gateway) operated(call *Call) (route.Node, error) {
	name, err := call.First.Text(call.Method.NodeField, "")
	if err != nil {
		return route.Node{}, call.badField(call.Method.NodeField, err)
	}
	if name != "" {
		node, ok := g.routes.Node(name)
		if !ok || node.Kind != call.Method.Upstream {
			return route.Node{}, connect.Errorf(connect.CodeNotFound, "no %s node is called %q", call.Method.Upstream, excerpt.Text(name, excerpt.Name))
		}
		return node, nil
	}
	var all []route.Node
	var names []string
	for _, node := range g.routes.Nodes() {
		if node.Kind == call.Method.Upstream {
			all, names = append(all, node), append(names, node.ID)
		}
	}
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1 && call.Tenant.IsZero():
		return route.Node{}, connect.Errorf(connect.CodeInvalidArgument, "there are %d %s nodes: say which one (%s)", len(all), call.Method.Upstream, strings.Join(names, ", "))
	}
	return route.Node{}, nil
}

// avoid looks for another node than call.Node, unless so many are open that the
// breakers are not to be trusted: then call.Node is called all the same.
func (g *Gateway) avoid(call *Call) {
	ready := g.routes.Ready(call.Method.Upstream)
	endpoints := make([]string, len(ready))
	for i := range ready {
		endpoints[i] = ready[i].Endpoint
	}
	if g.breakers.Panics(endpoints, call.Method.Spec.Procedure, call.Tenant) {
		call.Forced = true
		return
	}
	other, ok := g.routes.Elsewhere(call.Method.Upstream, call.Tenant, func(node route.Node) bool {
		return node.ID == call.Node.ID || g.breakers.Open(node.Endpoint, call.Method.Spec.Procedure, call.Tenant)
	})
	if ok {
		call.Node = other
	}
}

// forward calls the node and passes its answer on.
func (g *Gateway) forward(ctx context.Context, call *Call) error {
	if call.Method.Spec.StreamType != connect.StreamTypeUnary {
		return g.forwardStream(ctx, call)
	}
	answer := &call.answer
	answer.Program, answer.Lend = call.Method.Output, true
	defer answer.Release()
	for began := call.enteredAt(); ; began = time.Now() {
		call.Attempts++
		pass, wait, ok := g.enter(call, began)
		if !ok {
			return silentNode(call, wait)
		}
		err := g.ask(ctx, call, answer)
		pass.Done(outcome(ctx, call, began, err))
		if err == nil {
			g.retries.Call(call.Node.Endpoint)
			passMetadata(call.Info, &call.hop)
			g.explain(ctx, call, nil)
			return call.Stream.Send(answer)
		}
		if !g.retry(ctx, call, err) {
			passMetadata(call.Info, &call.hop)
			return reauthor(ctx, err)
		}
	}
}

// retry waits before another attempt, at another node if there is one, or
// reports that there is none: the call must be safe to repeat and the node not
// have taken it, or not be known to.
func (g *Gateway) retry(ctx context.Context, call *Call, err error) bool {
	if connect.CodeOf(err) != connect.CodeUnavailable || call.Attempts >= maxAttempts || !call.Method.Retriable(call.Keyed) || ctx.Err() != nil {
		return false
	}
	wait, asked, again := upstream.Pushback(&call.hop, err)
	if !again {
		g.counters.retried.WithLabelValues("refused by the node").Inc()
		return false
	}
	if !asked {
		wait = rand.N(firstBackoff << (call.Attempts - 1))
	}
	if deadline, ok := ctx.Deadline(); wait > maxPushback || ok && time.Until(deadline) < wait+minRemaining {
		return false
	}
	if !call.Tenant.IsZero() && !g.tenants.Of(call.Tenant).Retry() {
		g.counters.retried.WithLabelValues("forbidden").Inc()
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		call.Waited += wait
	case <-ctx.Done():
		return false
	}
	failed := call.Node
	if !call.Forced {
		// The tenant may have moved meanwhile.
		if node, ok := g.routes.Lookup(call.Method.Upstream, call.Tenant); ok && node.ID != call.Node.ID {
			call.Node = node
		} else {
			g.avoid(call)
		}
	}
	// The node that would get the call has a say: what others fail at must not drown it.
	if !g.retries.Retry(call.Node.Endpoint) {
		call.Node = failed
		g.counters.retried.WithLabelValues("forbidden").Inc()
		return false
	}
	g.counters.retried.WithLabelValues("sent").Inc()
	return true
}

// open begins a call of the node.
func (g *Gateway) open(ctx context.Context, call *Call) (connect.ClientStream, error) {
	if call.Attempts > 1 {
		call.hop = connect.CallInfo{}
	}
	call.hop.Spec, call.hop.PeerAddr = call.Method.Spec, call.Node.Endpoint
	return g.nodes.Open(ctx, &call.hop, call)
}

// ask makes a unary call of the node.
func (g *Gateway) ask(ctx context.Context, call *Call, answer *frame.Frame) error {
	stream, err := g.open(ctx, call)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // its error is Receive's
	if err := stream.Send(call.First); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.Receive(answer)
}

// reauthor makes the node's verdict the gateway's own: Connect scrubs a remote
// error that a handler returns.
func reauthor(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	verdict, _ := errors.AsType[*connect.Error](err)
	switch {
	case verdict != nil:
		out := connect.NewError(verdict.Code(), verdict.Message()).WithCause(verdict.Unwrap())
		for _, detail := range verdict.Details() {
			out = out.WithDetail(detail)
		}
		return out
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the upstream did not answer within the call's deadline")
	}
	return err
}

// forwardStream pumps both directions of a stream until the node ends it.
func (g *Gateway) forwardStream(ctx context.Context, call *Call) error {
	call.Attempts++
	pass, wait, ok := g.enter(call, call.enteredAt())
	if !ok {
		return silentNode(call, wait)
	}
	// The first known outcome counts, or Unknown at the end if there is none.
	known := false
	done := func(outcome breaker.Outcome) {
		if !known {
			known = true
			pass.Done(outcome)
		}
	}
	defer done(breaker.Unknown)
	ctx, release := g.while(ctx, call)
	defer release()
	stream, err := g.open(ctx, call)
	if err != nil {
		done(outcome(ctx, call, call.enteredAt(), err))
		return reauthor(ctx, err)
	}
	defer func() { _ = stream.Close() }() // its error is Receive's
	// A node may end the stream while the client still sends. The pump of
	// requests then ends with the edge's own stream, whose Receive fails once
	// the handler has returned; waiting for it here would wait for the client.
	pumped := make(chan pumpEnd, 1)
	go func() {
		sent := call.pumpRequests(stream)
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
		done(outcome(ctx, call, call.enteredAt(), err))
	}
	if err == nil {
		return nil
	}
	if ended := call.ended(ctx); ended != nil {
		return ended
	}
	if late := rpc.Late(ctx); late != nil {
		return late
	}
	return reauthor(ctx, err)
}

// pumpAnswers passes the node's messages on until it ends the stream.
func (c *Call) pumpAnswers(stream connect.ClientStream, done func(breaker.Outcome)) error {
	answer := &frame.Frame{Program: c.Method.Output, Lend: true}
	defer answer.Release()
	for first := true; ; first = false {
		err := stream.Receive(answer)
		if first || err != nil {
			edge.SetHeaders(c.Stream, func() { passMetadata(c.Info, &c.hop) })
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

// pumpEnd is how the pump of requests ended.
type pumpEnd struct {
	err error
	// The rule and the resource of a denial. They are not written to the call, which may have
	// ended concurrently.
	denied   rule
	resource string
}

// pumpRequests sends the first message, if there is one, and the following ones. Every message
// of a stream must be for the stream's tenant, and for resources that the right covers.
func (c *Call) pumpRequests(stream connect.ClientStream) pumpEnd {
	tenant := c.Tenant.String()
	if c.First == nil {
		if err := stream.SendHeaders(); err != nil {
			return pumpEnd{} // the node's verdict is received
		}
	} else {
		if c.Method.TenantField != 0 {
			tenant, _ = c.First.Text(c.Method.TenantField, "") // read before, without error
		}
		if err := stream.Send(c.First); err != nil {
			return pumpEnd{} // the node has ended the call; its verdict is received
		}
		c.sent()
	}
	if c.Method.Spec.StreamType&connect.StreamTypeClient == 0 {
		return pumpEnd{err: stream.CloseSend()}
	}
	further := &Call{Method: c.Method, Info: c.Info, Stream: c.Stream, Principal: c.Principal, First: c.First, Resource: c.Resource}
	err := further.pump(stream, tenant, &c.charge)
	return pumpEnd{err: err, denied: further.denied, resource: further.Resource}
}

// pump sends the messages after the first, each charged to held until it is sent.
func (c *Call) pump(to connect.ClientStream, tenant string, held *charge) error {
	for {
		message := &frame.Frame{Program: c.Method.Input}
		err := c.read(message)
		if err == nil {
			err = held.settle(message.Len())
		}
		switch {
		case errors.Is(err, io.EOF):
			return to.CloseSend()
		case err != nil:
			return err
		}
		if err := c.bind(message, tenant); err != nil {
			return err
		}
		if err := c.authorize(message); err != nil {
			return err
		}
		if err := to.Send(message); err != nil {
			return nil //nolint:nilerr // the node has ended the call; its verdict is received
		}
		held.sent()
	}
}

// bind makes a further message of a stream be for the stream's tenant.
func (c *Call) bind(message *frame.Frame, tenant string) error {
	if c.Method.TenantField == 0 {
		return nil
	}
	switch named, err := message.Text(c.Method.TenantField, tenant); {
	case err != nil:
		return c.badField(c.Method.TenantField, err)
	case named == "":
		message.AppendText(c.Method.TenantField, tenant)
	case named != tenant:
		return c.denyTenant("a message of the stream names another tenant")
	}
	return nil
}
