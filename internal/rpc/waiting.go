package rpc

import (
	"encoding/json"
	"errors"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
)

// NewWaiting returns a server for an address of a process that cannot take calls yet, because a
// dependency of its start is unreachable. It answers /health (alive), /ready (503 with the reason
// that ready returns) and the gRPC health protocol (NOT_SERVING); every other request is
// UNAVAILABLE: HTTP 503 with the JSON body of an error of Connect, which clients of gRPC understand
// too. The address is one of config.Sockets, and stays bound when the server ends. At an address of
// operators /metrics is served, with further collectors.
func NewWaiting(
	config Config, operators bool, ready Readiness, log zerolog.Logger, metrics ...prometheus.Collector,
) *Server {
	config.GRPC = ""
	s := newServer(config, NewMetrics(config.Name), ready, log)
	s.listen = config.Sockets.lend
	s.watches = newWatches(s.Metrics.Registerer(config.Name))
	s.RPC = connect.NewServer(s.recovered, boundErrors, s.endStreams)
	s.options = []connecthttp.Option{connecthttp.WithReadMaxBytes(s.config.MaxBodyBytes)}
	registerHealth(s.RPC, health{ready: s.ready, watches: s.watches})
	if operators {
		s.Metrics.Registerer(config.Name).MustRegister(metrics...)
		s.mountMetrics()
	}
	s.HTTP.Handle("/", contextkit.HTTPMiddleware(http.HandlerFunc(s.refuseAll)))
	return s
}

// refuseAll answers every request with UNAVAILABLE.
func (s *Server) refuseAll(w http.ResponseWriter, r *http.Request) {
	err := s.Ready(r.Context())
	if err == nil {
		err = errors.New("it is starting")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]string{ // the client is gone if this fails
		"code":    connect.CodeUnavailable.String(),
		"message": "the " + s.config.Name + " takes no calls yet: " + err.Error(),
	})
}
