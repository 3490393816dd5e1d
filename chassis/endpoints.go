package chassis

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"

	"github.com/headgate/headgate/contextkit"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// standardEndpoints mounts what operators and probes expect of every process.
func (s *Server) standardEndpoints() {
	s.HTTP.Handle("GET /health", contextkit.HTTPMiddleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusOK, statusBody{Status: "alive", Process: s.config.Name})
	})))
	s.HTTP.Handle("GET /ready", contextkit.HTTPMiddleware(http.HandlerFunc(s.serveReady)))
}

// mountMetrics shows the metrics to Prometheus, exemplars too where it asks for
// OpenMetrics.
func (s *Server) mountMetrics() {
	s.HTTP.Handle("GET /metrics", contextkit.HTTPMiddleware(promhttp.HandlerFor(s.Metrics.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: 4,
	})))
}

// mountProfiles serves profiles of the process.
func (s *Server) mountProfiles() {
	s.HTTP.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.HTTP.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.HTTP.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.HTTP.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
}

// serveReady answers whether the process can serve; with ?tenant=, whether it
// can serve that tenant.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	var tenant contextkit.TenantID
	answer := statusBody{Status: "ready", Process: s.config.Name}
	if name := r.URL.Query().Get("tenant"); name != "" {
		var err error
		if tenant, err = contextkit.ParseTenantID(name); err != nil {
			answer.Status, answer.Reason = "not ready", err.Error()
			writeStatus(w, http.StatusBadRequest, answer)
			return
		}
		answer.Tenant = tenant.String()
	}
	if err := s.ready(r.Context(), tenant); err != nil {
		answer.Status, answer.Reason = "not ready", err.Error()
		writeStatus(w, http.StatusServiceUnavailable, answer)
		return
	}
	writeStatus(w, http.StatusOK, answer)
}

// statusBody is the body of /health and /ready.
type statusBody struct {
	Status  string `json:"status"`
	Process string `json:"process"`
	Tenant  string `json:"tenant,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func writeStatus(w http.ResponseWriter, code int, body statusBody) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}
