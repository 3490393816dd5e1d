package gateway_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/dynamicpb"
)

// compressions receives the encodings of answers.
type compressions chan string

func (compressions) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (compressions) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (compressions) HandleConn(context.Context, stats.ConnStats)                       {}
func (c compressions) HandleRPC(_ context.Context, event stats.RPCStats) {
	if header, ok := event.(*stats.InHeader); ok {
		c <- header.Compression
	}
}

func TestCompression_GRPCStreamUsesRequestsEncoding(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register, ticks.set(t))
	requested := make(compressions, 1)
	conn, err := grpc.NewClient(strings.TrimPrefix(e.grpc, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(requested))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for asked, options := range map[string][]grpc.CallOption{"": nil, "gzip": {grpc.UseCompressor("gzip")}} {
		ctx, cancel := context.WithCancel(
			metadata.AppendToOutgoingContext(t.Context(), "authorization", e.token(t, "acme", "tick.read")),
		)
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Ticker/Watch", options...)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(dynamicpb.NewMessage(ticks.desc.Input())); err != nil {
			t.Fatal(err)
		}
		<-ticks.ask
		ticks.next <- 1
		if err := stream.RecvMsg(dynamicpb.NewMessage(ticks.desc.Output())); err != nil {
			t.Fatal(err)
		}
		if got := <-requested; got != asked && (asked != "" || got != "identity") {
			t.Errorf("request encoding %q: response encoding %q", asked, got)
		}
		cancel()
		<-ticks.done
	}
}
