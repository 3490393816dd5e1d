package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
)

// relay is the upper bound of what Submit can reach with grpc-go: a server that forwards calls with a client takes
// the gateway's place, and a server that publishes one event per call takes the node's place. Neither decodes messages.
type relay struct {
	gateway, node string // addresses
	servers       []*grpc.Server
	conn          *grpc.ClientConn
	running       errgroup.Group
	last          sync.Map // caller's id → *appended
}

// appended is the number and the last sequence of a caller's events.
type appended struct {
	count int
	last  uint64
}

func (p *platform) startRelay(ctx context.Context) (*relay, error) {
	h := &relay{}
	node := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.NumStreamWorkers(64),
		//nolint:contextcheck // a call has its own context
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			stored, _ := h.last.LoadOrStore(string(request[:36]), &appended{})
			events, _ := stored.(*appended)
			events.count++
			var err error
			if events.last, err = p.publish(
				stream.Context(), string(request[:36]), events.count, events.last,
			); err != nil {
				return err
			}
			return stream.SendMsg(append(request, strconv.FormatUint(events.last, 10)...))
		}))
	var err error
	if h.node, err = h.serve(ctx, node); err != nil {
		return nil, err
	}
	if h.conn, err = grpc.NewClient("passthrough:///"+h.node, rawClient()...); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if h.gateway, err = h.serve(ctx, forward(h.conn)); err != nil { //nolint:contextcheck // a call has its own context
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *relay) serve(ctx context.Context, server *grpc.Server) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	h.servers = append(h.servers, server)
	h.running.Go(func() error { return server.Serve(listener) })
	return listener.Addr().String(), nil
}

func (h *relay) close() error {
	for _, server := range h.servers {
		server.Stop()
	}
	var err error
	if h.conn != nil {
		err = h.conn.Close()
	}
	return errors.Join(err, h.running.Wait())
}

// call sends requests of the size of a command to an address until a time, and returns their number. Each caller
// appends to its own events.
func (h *relay) call(ctx context.Context, addr string, callers int, until time.Time) (float64, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	var done atomic.Int64
	var group errgroup.Group
	for range callers {
		group.Go(func() error {
			request := append([]byte(uuid.NewString()), make([]byte, 100)...)
			for time.Now().Before(until) {
				var answer []byte
				if err := conn.Invoke(
					ctx, "/aggregate.gateway.v1.CommandService/Submit", request, &answer, grpc.ForceCodecV2(raw{}),
					experimental.AcceptCompressors(plainName),
				); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err = group.Wait()
	return float64(done.Load()), err
}
