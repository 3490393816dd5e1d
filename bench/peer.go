package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/vanguard"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
)

// peerCommand runs one of the processes of a comparison; `peers` starts them.
type peerCommand struct {
	Kind     string `arg:"" enum:"upstream,vanguard,forwarder,grpcgo" help:"What to run."`
	Listen   string `required:"" help:"Where it listens."`
	Direct   string `help:"Where the upstream answers JSON itself."`
	HTTP     string `help:"Where the bare transports speak HTTP."`
	Admin    string `help:"Where it tells its allocations."`
	Upstream string `help:"host:port of the upstream."`
}

// Run runs the process until it receives a signal to end.
func (c *peerCommand) Run(ctx context.Context) error {
	switch c.Kind {
	case "upstream":
		return c.upstream(ctx)
	case "vanguard":
		return c.vanguard(ctx)
	case "grpcgo":
		return c.grpcgo(ctx)
	}
	return c.forwarder(ctx)
}

// answer returns the response of the upstream for a view: one row for "one", a hundred for "hundred", with eight fields
// each.
func answer(view string) (*projectionv1.QueryResponse, error) {
	count := 1
	if view == "hundred" {
		count = 100
	}
	res := &projectionv1.QueryResponse{Position: "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0"}
	for n := range count {
		row, err := structpb.NewStruct(map[string]any{
			"order_id": fmt.Sprintf("order-%06d", n), "customer": "Ada Lovelace", "amount": 1250.5 + float64(n),
			"currency": "EUR",
			"paid":     n%2 == 0, "items": float64(n % 7), "note": "leave it at the \"back\" door",
			"placed_at": "2026-01-02T03:04:05.678Z",
		})
		if err != nil {
			return nil, err
		}
		res.Rows = append(res.Rows, row)
	}
	return res, nil
}

// raw is a codec whose messages are bytes, which it does not encode.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// upstream serves the query by gRPC at the lowest cost, from encoded responses, and at a second address (Direct) as the
// product's services do.
func (c *peerCommand) upstream(ctx context.Context) error {
	answers := map[string][]byte{}
	for _, view := range []string{"one", "hundred"} {
		res, err := answer(view)
		if err != nil {
			return err
		}
		if answers[view], err = (proto.MarshalOptions{Deterministic: true}).Marshal(res); err != nil {
			return err
		}
	}
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			method, _ := grpc.MethodFromServerStream(stream)
			if method != gatewayv1connect.QueryServiceQueryProcedure {
				return stream.SendMsg([]byte{8, 1}) // grpc.health.v1: SERVING
			}
			var req projectionv1.QueryRequest
			if err := proto.Unmarshal(request, &req); err != nil {
				return err
			}
			return stream.SendMsg(answers[req.GetView()])
		}),
	)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	direct := rpc.NewServer(rpc.Config{Name: "direct", Addr: c.Direct},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	gatewayv1connect.RegisterQueryServiceHandler(direct.RPC, service{})
	if err := direct.Listen(ctx); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = direct.Serve(ctx)
	server.Stop()
	return errors.Join(err, <-served)
}

// service serves the query as a node of the product does.
type service struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
}

func (service) Query(_ context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	return answer(req.GetView())
}

// h2c is a client of HTTP/2 in clear text.
func h2c() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: protocols, DisableCompression: true}
}

// vanguard serves with connectrpc.com/vanguard and a reverse proxy, as in its documentation.
func (c *peerCommand) vanguard(ctx context.Context) error {
	target := &url.URL{Scheme: "http", Host: c.Upstream}
	proxy := &httputil.ReverseProxy{
		Transport: h2c(), FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
	}
	handler, err := vanguard.NewTranscoder([]*vanguard.Service{vanguard.NewServiceWithSchema(
		projectionv1.File_projection_gateway_v1_query_proto.Services().ByName("QueryService"), proxy,
		vanguard.WithTargetProtocols(vanguard.ProtocolGRPC), vanguard.WithTargetCodecs(vanguard.CodecProto),
	)})
	if err != nil {
		return err
	}
	return c.serve(ctx, handler)
}

// forwarder serves with a handwritten Connect handler of the generated types, which calls the generated client.
func (c *peerCommand) forwarder(ctx context.Context) error {
	//nolint:forbidigo // a handwritten handler does not use contextkit
	client := gatewayv1connect.NewQueryServiceClient(
		connect.NewClient(
			connecthttp.NewTransport(&http.Client{Transport: h2c()}, "http://"+c.Upstream, connecthttp.WithGRPC()),
		),
	)
	server := connect.NewServer()
	gatewayv1connect.RegisterQueryServiceHandler(server, forwarding{client: client})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	return c.serve(ctx, mux)
}

type forwarding struct {
	gatewayv1connect.UnimplementedQueryServiceHandler

	client gatewayv1connect.QueryServiceClient
}

func (f forwarding) Query(ctx context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	return f.client.Query(ctx, req)
}

// grpcgo serves with grpc-go and net/http, and forwards the bytes of each call with a client of grpc-go: it measures
// the cost of the transports alone.
func (c *peerCommand) grpcgo(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+c.Upstream, rawClient()...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	bare, err := bare(conn)
	if err != nil {
		return err
	}
	server := forward(conn) //nolint:contextcheck // a call has its own context
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = serveBoth(ctx, c.HTTP, c.Admin, bare)
	server.Stop()
	return errors.Join(err, <-served)
}

// rawClient returns the options of a channel that sends and receives messages without encoding them.
func rawClient() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(256 << 10), grpc.WithStaticConnWindowSize(1 << 20),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), experimental.AcceptCompressors(plainName)),
	}
}

// forward returns a server that forwards each call unchanged.
func forward(conn *grpc.ClientConn) *grpc.Server {
	return grpc.NewServer(
		grpc.ForceServerCodecV2(raw{}), grpc.NumStreamWorkers(64), grpc.StaticStreamWindowSize(256<<10),
		grpc.StaticConnWindowSize(1<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var request, answer []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			method, _ := grpc.MethodFromServerStream(stream)
			received, _ := metadata.FromIncomingContext(stream.Context())
			if err := conn.Invoke(
				metadata.NewOutgoingContext(stream.Context(), received), method, request, &answer,
			); err != nil {
				return err
			}
			return stream.SendMsg(answer)
		}))
}

// bare returns a handler that forwards each HTTP request as an encoded gRPC request, and answers with encoded JSON.
func bare(conn *grpc.ClientConn) (http.Handler, error) {
	requests, answers := map[string][]byte{}, map[string][]byte{}
	for _, view := range []string{"one", "hundred"} {
		res, err := answer(view)
		if err != nil {
			return nil, err
		}
		if answers[view], err = protojson.Marshal(res); err != nil {
			return nil, err
		}
		if requests[view], err = proto.Marshal(&projectionv1.QueryRequest{TenantId: "acme", View: view}); err != nil {
			return nil, err
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		view := path.Base(r.URL.Path)
		var got []byte
		_, err := io.ReadAll(r.Body)
		if err == nil {
			err = conn.Invoke(r.Context(), gatewayv1connect.QueryServiceQueryProcedure, requests[view], &got)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(answers[view]) // it fails if the client has disconnected
	}), nil
}

// serve serves a handler over HTTP/1.1 and HTTP/2 in clear text.
func (c *peerCommand) serve(ctx context.Context, handler http.Handler) error {
	return serveBoth(ctx, c.Listen, c.Admin, handler)
}

func serveBoth(ctx context.Context, listen, admin string, handler http.Handler) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	servers := []*http.Server{
		{
			Addr:              listen,
			Handler:           handler,
			Protocols:         protocols,
			ReadHeaderTimeout: 5 * time.Second,
			HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		},
		{
			Addr:              admin,
			Handler:           promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
			ReadHeaderTimeout: 5 * time.Second,
		},
	}
	failed := make(chan error, len(servers))
	for _, server := range servers {
		go func() { failed <- server.ListenAndServe() }()
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	for _, server := range servers {
		_ = server.Close() // the measurement is over
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return err
}
