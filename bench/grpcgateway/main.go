// Command grpcgateway serves the upstream of a comparison with grpc-gateway v2, as in its documentation. It is a
// separate program, since its generated code registers the same protobuf files as the product's.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	gatewayv1 "github.com/headgate/headgate/bench/grpcgateway/gen/projection/gateway/v1"
)

func main() {
	listen := flag.String("listen", "", "where it listens")
	admin := flag.String("admin", "", "where it tells its allocations")
	upstream := flag.String("upstream", "", "host:port of the upstream")
	flag.Parse()
	debug.SetGCPercent(400) // as for all contestants in Go
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *listen, *admin, *upstream); err != nil {
		log.Print(err)
	}
}

// run serves until ctx ends or a listener fails.
func run(ctx context.Context, listen, admin, upstream string) error {
	mux := runtime.NewServeMux()
	err := gatewayv1.RegisterQueryServiceHandlerFromEndpoint(ctx, mux, upstream,
		[]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())})
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr:              listen,
		Handler:           mux,
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
	}
	side := &http.Server{
		Addr:              admin,
		Handler:           promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	failed := make(chan error, 2)
	go func() { failed <- side.ListenAndServe() }()
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}
