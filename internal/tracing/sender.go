package tracing

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"time"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// exportMethod is the collector's (opentelemetry-proto, collector/trace/v1). Its request
// is, on the wire, [tracev1.TracesData].
const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// retryPolicy has grpc-go retry the codes that OTLP defines as retryable, within the attempt's
// time.
const retryPolicy = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"]
}}]}`

// reconnect bounds the waits between attempts to connect at two seconds, where gRPC's default
// grows to two minutes, so that spans reach a collector within seconds after an outage of any
// length.
var reconnect = backoff.Config{
	BaseDelay:  200 * time.Millisecond,
	Multiplier: 1.6,
	Jitter:     0.2,
	MaxDelay:   2 * time.Second,
}

// sender is an [otlptrace.Client] over gRPC: OpenTelemetry's client depends on grpc-gateway.
type sender struct {
	conn    *grpc.ClientConn
	headers metadata.MD
}

func newSender(c Config) (*sender, error) {
	at, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	secure := insecure.NewCredentials()
	if at.Scheme == "https" {
		secure = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient(
		at.Host, grpc.WithTransportCredentials(secure), grpc.WithDefaultServiceConfig(retryPolicy),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: sendTimeout}),
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, err
	}
	return &sender{conn, metadata.New(c.Headers)}, nil
}

// Start implements [otlptrace.Client]: the first upload connects.
func (*sender) Start(context.Context) error { return nil }

// Stop implements [otlptrace.Client].
func (s *sender) Stop(context.Context) error { return s.conn.Close() }

// UploadTraces implements [otlptrace.Client].
func (s *sender) UploadTraces(ctx context.Context, spans []*tracev1.ResourceSpans) error {
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(ctx, s.headers), sendTimeout)
	defer cancel()
	// The response may report rejected spans, which the collector logs.
	if err := s.conn.Invoke(
		ctx, exportMethod, &tracev1.TracesData{ResourceSpans: spans}, &emptypb.Empty{},
	); err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	return nil
}
