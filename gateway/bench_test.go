package gateway_test

import (
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// BenchmarkGRPCEdge calls a node through the gateway over gRPC, at the main port and at the
// gRPC-only port. Client, gateway and node share the process: the difference of the two CPU times
// is that of the servers.
func BenchmarkGRPCEdge(b *testing.B) {
	e := start(b, nil)
	ctx := metadata.AppendToOutgoingContext(b.Context(), "authorization", e.token(b, "acme", "query.read"))
	for name, url := range map[string]string{"main": e.url, "grpc": e.grpc} {
		b.Run(name, func(b *testing.B) {
			conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			b.ReportAllocs()
			before := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var res projectionv1.QueryResponse
					if err := conn.Invoke(
						ctx, queriesconnect.QueryServiceQueryProcedure, &projectionv1.QueryRequest{View: "wallets"},
						&res,
					); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpu returns the process's CPU time in microseconds.
func cpu(b *testing.B) float64 {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return float64(use.Utime.Nano()+use.Stime.Nano()) / 1000
}
