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

// hops is the way of a command and nothing else: grpc-go's server before its client in
// the gateway's place, and another in the node's that publishes an event. Neither looks
// at what it passes on. What it can do is the most that any command could.
type hops struct {
	gateway, node string // addresses
	servers       []*grpc.Server
	conn          *grpc.ClientConn
	running       errgroup.Group
	last          sync.Map // of each caller's id: *appended
}

// appended is how far a caller's events have come.
type appended struct {
	count int
	last  uint64
}

func (p *platform) startHops(ctx context.Context) (*hops, error) {
	h := &hops{}
	node := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.NumStreamWorkers(64),
		//nolint:contextcheck // a call has its own context
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			kept, _ := h.last.LoadOrStore(string(request[:36]), &appended{})
			own, _ := kept.(*appended)
			own.count++
			var err error
			if own.last, err = p.publish(stream.Context(), string(request[:36]), own.count, own.last); err != nil {
				return err
			}
			return stream.SendMsg(append(request, strconv.FormatUint(own.last, 10)...))
		}))
	var err error
	if h.node, err = h.serve(ctx, node); err != nil {
		return nil, err
	}
	if h.conn, err = grpc.NewClient("passthrough:///"+h.node, rawClient()...); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if h.gateway, err = h.serve(ctx, passOn(h.conn)); err != nil { //nolint:contextcheck // a call has its own context
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *hops) serve(ctx context.Context, server *grpc.Server) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	h.servers = append(h.servers, server)
	h.running.Go(func() error { return server.Serve(listener) })
	return listener.Addr().String(), nil
}

func (h *hops) close() error {
	for _, server := range h.servers {
		server.Stop()
	}
	var err error
	if h.conn != nil {
		err = h.conn.Close()
	}
	return errors.Join(err, h.running.Wait())
}

// call sends requests of a command's size to an address, each caller for its own events.
func (h *hops) call(ctx context.Context, addr string, callers int, until time.Time) (float64, error) {
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
