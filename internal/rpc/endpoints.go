package rpc

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/pprof"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/headgate/headgate/contextkit"
)

// standardEndpoints mounts /health, /ready and the other endpoints of every process.
func (s *Server) standardEndpoints() {
	s.HTTP.Handle(
		"GET /health", contextkit.HTTPMiddleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			writeStatus(w, http.StatusOK, statusBody{Status: "alive", Process: s.config.Name})
		})),
	)
	s.HTTP.Handle("GET /ready", contextkit.HTTPMiddleware(http.HandlerFunc(s.serveReady)))
}

// mountMetrics serves the metrics for Prometheus, with exemplars if the client accepts OpenMetrics.
func (s *Server) mountMetrics() {
	s.HTTP.Handle(
		"GET /metrics", contextkit.HTTPMiddleware(promhttp.HandlerFor(s.Metrics.registry, promhttp.HandlerOpts{
			EnableOpenMetrics: true, MaxRequestsInFlight: 4,
		})),
	)
}

// mountProfiles serves profiles of the process.
func (s *Server) mountProfiles() {
	s.HTTP.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.HTTP.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.HTTP.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.HTTP.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
}

// serveReady answers whether the process can serve: 200, or 503 with the reason. With ?tenant=
// it answers whether the process can serve that tenant: 400 for an invalid name, 401 and 403
// where the server restricts the question (see [Edge]), and 429 after questions about too many
// tenants.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	var tenant contextkit.TenantID
	answer := statusBody{Status: "ready", Process: s.config.Name}
	refuse := func(code int, err error) {
		answer.Status, answer.Reason = "not ready", err.Error()
		if known, ok := errors.AsType[*connect.Error](err); ok {
			answer.Reason = known.Message()
		}
		writeStatus(w, code, answer)
	}
	if name := r.URL.Query().Get("tenant"); name != "" {
		var err error
		if tenant, err = contextkit.ParseTenantID(name); err != nil {
			refuse(http.StatusBadRequest, err)
			return
		}
		answer.Tenant = tenant.String()
		if s.mayAsk != nil {
			err = s.mayAsk(r, tenant)
		}
		if err != nil {
			answer.Tenant = ""
			status := readyStatus(err)
			if denial, ok := errors.AsType[*connect.Error](err); ok && status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", Challenge(denial))
			}
			refuse(status, err)
			return
		}
	}
	err := s.ready(r.Context(), tenant)
	if s.degraded != nil {
		answer.Degraded = s.degraded(r.Context(), tenant)
	}
	if err != nil {
		refuse(readyStatus(err), err)
		return
	}
	writeStatus(w, http.StatusOK, answer)
}

// readyStatus returns the HTTP status of an answer that is not "ready".
func readyStatus(err error) int {
	known, _ := errors.AsType[*connect.Error](err)
	switch {
	case known == nil:
		return http.StatusServiceUnavailable
	case known.Code() == connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	case known.Code() == connect.CodePermissionDenied:
		return http.StatusForbidden
	case known.Code() == connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	}
	return http.StatusServiceUnavailable
}

// statusBody is the body of /health and /ready.
type statusBody struct {
	Status  string `json:"status"`
	Process string `json:"process"`
	Tenant  string `json:"tenant,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// Degraded maps each part that does not work to the reason.
	Degraded map[string]string `json:"degraded,omitempty"`
}

func writeStatus(w http.ResponseWriter, code int, body statusBody) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}
