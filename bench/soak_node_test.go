package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// fault is the fault of a node.
type fault int32

const (
	healthy  fault = iota
	slow           // answers after slowAnswer
	hanging        // accepts calls and never answers
	refusing       // no listener
	reset          // resets connections when it accepts them
	failing        // answers UNAVAILABLE
	dying          // resets connections during calls and streams
)

func (f fault) String() string {
	return [...]string{"healthy", "slow", "hanging", "refusing", "resetting", "returning errors", "dying mid-stream"}[f]
}

const (
	slowAnswer = 400 * time.Millisecond
	// healthyAnswer is how long a healthy node takes, so that calls are in flight.
	healthyAnswer = 2 * time.Millisecond
	headerNode    = "x-soak-node"
)

// node is a service with a fault that a test sets.
type node struct {
	name, addr string
	answer     []byte
	fault      atomic.Int32
	attempts   atomic.Int64 // calls that reached it

	mu       sync.Mutex
	server   *grpc.Server // nil: not listening
	listener *cutting
	served   chan error
}

func newNode(ctx context.Context, name string) (*node, error) {
	res, err := answer("one")
	if err != nil {
		return nil, err
	}
	n := &node{name: name}
	if n.answer, err = proto.Marshal(res); err != nil {
		return nil, err
	}
	if n.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	return n, n.listen(ctx)
}

// listen accepts connections, at the same address each time.
func (n *node) listen(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", n.addr)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = &cutting{Listener: listener, node: n, open: map[net.Conn]bool{}}
	n.server = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(n.serve),
		grpc.MaxConcurrentStreams(10_000))
	n.served = make(chan error, 1)
	go func(server *grpc.Server, listener net.Listener, served chan<- error) {
		served <- server.Serve(listener)
	}(n.server, n.listener, n.served)
	return nil
}

// stop closes the connections immediately.
func (n *node) stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return nil
	}
	n.server.Stop()
	n.server = nil
	return <-n.served
}

// set sets the fault.
func (n *node) set(ctx context.Context, f fault) error {
	was := fault(n.fault.Swap(int32(f)))
	switch {
	case f == refusing:
		return n.stop()
	case was == refusing:
		return n.listen(ctx)
	case f == reset || f == dying:
		n.listener.cut()
	}
	return nil
}

func (n *node) serve(_ any, stream grpc.ServerStream) error {
	ctx := stream.Context()
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	query := method == gatewayv1connect.QueryServiceQueryProcedure
	watch := method == gatewayv1connect.QueryServiceWatchProcedure
	if query {
		n.attempts.Add(1)
	}
	wait := healthyAnswer
	switch f := fault(n.fault.Load()); {
	case f == hanging:
		<-ctx.Done()
		return ctx.Err()
	case f == slow:
		wait = slowAnswer
	case f == failing && query:
		return status.Error(codes.Unavailable, "out of order")
	case f == dying && (query || watch):
		if err := stream.SendMsg(n.answer[:len(n.answer):len(n.answer)]); err != nil {
			return err
		}
		n.listener.cut()
		return errors.New("cut off")
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if err := stream.SetHeader(metadata.Pairs(headerNode, n.name)); err != nil {
		return err
	}
	switch {
	case query:
		return stream.SendMsg(n.answer)
	case watch:
		var req projectionv1.WatchRequest
		if err := proto.Unmarshal(request, &req); err != nil {
			return err
		}
		if req.GetView() == viewFlood {
			return n.flood(ctx, stream)
		}
		return n.trickle(ctx, stream)
	}
	return stream.SendMsg([]byte{8, 1}) // grpc.health.v1: SERVING
}

// viewFlood is the view with endless changes.
const viewFlood = "flood"

// trickleEvery is the time between two changes of any other view.
const trickleEvery = 100 * time.Millisecond

// trickle sends a small message every trickleEvery.
func (n *node) trickle(ctx context.Context, stream grpc.ServerStream) error {
	small, err := proto.Marshal(&projectionv1.WatchResponse{Position: "p"})
	if err != nil {
		return err
	}
	ticker := time.NewTicker(trickleEvery)
	defer ticker.Stop()
	for {
		if fault(n.fault.Load()) != hanging {
			if err := stream.SendMsg(small); err != nil {
				return err
			}
		}
		if fault(n.fault.Load()) == dying {
			n.listener.cut()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// flood sends large messages as fast as the client reads them.
func (n *node) flood(ctx context.Context, stream grpc.ServerStream) error {
	big, err := proto.Marshal(&projectionv1.WatchResponse{Position: fmt.Sprintf("%065536d", 1)})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := stream.SendMsg(big); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// cutting is a listener that can reset its connections.
type cutting struct {
	net.Listener
	node *node
	mu   sync.Mutex
	open map[net.Conn]bool
}

func (l *cutting) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if fault(l.node.fault.Load()) == reset {
			_ = conn.(*net.TCPConn).SetLinger(0) // closing is a reset
			_ = conn.Close()
			continue
		}
		l.mu.Lock()
		l.open[conn] = true
		l.mu.Unlock()
		return conn, nil
	}
}

// cut resets all connections.
func (l *cutting) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	clear(l.open)
}
