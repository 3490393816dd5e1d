package rpc_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
)

// watchHealth opens a watch and returns it once it has answered, or why it is refused.
func watchHealth(ctx context.Context, client *connect.Client) (connect.ClientStream, error) {
	stream, err := client.CallServerStream(
		contextkit.PlatformContext(ctx),
		connect.Spec{Procedure: healthv1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer},
		&healthv1.HealthCheckRequest{},
	)
	if err != nil {
		return nil, err
	}
	if err := stream.Receive(&healthv1.HealthCheckResponse{}); err != nil {
		_ = stream.Close()
		return nil, err
	}
	return stream, nil
}

// from returns a client whose connections have the local address.
func from(t *testing.T, address, url string) *connect.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	client := &http.Client{Transport: &http.Transport{Protocols: protocols, DialContext: dialer.DialContext}}
	t.Cleanup(client.CloseIdleConnections)
	return contextkit.NewClient(connecthttp.NewTransport(client, url, connecthttp.WithGRPC()))
}

func TestHealthWatch_IsBoundedPerAddressAndInTotal(t *testing.T) {
	p := start(t)
	p.server.BoundWatches(5, 3, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	main, alone := p.server.URL(), "http://"+p.server.GRPCAddr()
	refused := func(client *connect.Client, bound string) {
		t.Helper()
		_, err := watchHealth(ctx, client)
		if connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("the watch beyond the bound: %v", err)
		}
		if _, text := p.get(t, "/metrics"); !strings.Contains(
			text, `headgate_health_watches_refused_total{bound="`+bound+`",process="views"} 1`,
		) {
			t.Errorf("the refusal is not counted as one by the bound %s", bound)
		}
	}
	var open []connect.ClientStream
	begin := func(address, url string) {
		t.Helper()
		stream, err := watchHealth(ctx, from(t, address, url))
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		open = append(open, stream)
	}
	// One client at both ports together.
	begin("127.0.0.2", main)
	begin("127.0.0.2", alone)
	begin("127.0.0.2", alone)
	refused(from(t, "127.0.0.2", main), "address")
	begin("127.0.0.3", main) // another has its own
	begin("127.0.0.4", alone)
	refused(from(t, "127.0.0.5", alone), "total")
	if _, text := p.get(t, "/metrics"); !strings.Contains(text, `headgate_health_watches{process="views"} 5`) {
		t.Error("the metric does not show the watches that are open")
	}
	// A check is no watch.
	var res healthv1.HealthCheckResponse
	spec := connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary}
	if err := from(t, "127.0.0.2", main).CallUnary(
		contextkit.PlatformContext(ctx), spec, &healthv1.HealthCheckRequest{}, &res,
	); err != nil {
		t.Errorf("Check: %v", err)
	}
	// A place is free once its watch has ended.
	_ = open[0].Close()
	again := from(t, "127.0.0.2", main)
	for { // the server learns of it eventually
		stream, err := watchHealth(ctx, again)
		if err == nil {
			_ = stream.Close()
			break
		}
		if connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Fatal(err)
		}
	}
	for _, stream := range open[1:] {
		_ = stream.Close()
	}
}

// endsAfterItsTime checks a watch of a server whose watches last for a second.
func endsAfterItsTime(t *testing.T, client *connect.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := watchHealth(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := stream.Receive(&healthv1.HealthCheckResponse{}); connect.CodeOf(err) != connect.CodeUnavailable ||
		!strings.Contains(err.Error(), "call again") {
		t.Errorf("the watch ends with %v", err)
	}
}

func TestHealthWatch_EndsAfterItsLongestTime(t *testing.T) {
	t.Parallel()
	everyHop(t, func(t *testing.T, p *process, client *connect.Client) {
		p.server.BoundWatches(5, 3, time.Second)
		endsAfterItsTime(t, client)
	})
	edge := startEdge(t)
	edge.BoundWatches(5, 3, time.Second)
	for port, url := range map[string]string{
		"edge, main port": edge.URL(), "edge, gRPC-only port": "http://" + edge.GRPCAddr(),
	} {
		t.Run(port, func(t *testing.T) { endsAfterItsTime(t, from(t, "127.0.0.2", url)) })
	}
}
