package contextkit

import (
	"net/http"
)

// HTTPTransport returns base with the contract injected into every request, for
// probes and webhooks that are plain HTTP. It refuses a request whose context
// carries no tenant (or platform scope) and trace. It also propagates the
// response unchanged; base's rules of concurrent use apply.
func HTTPTransport(base http.RoundTripper) http.RoundTripper {
	return roundTripper{base}
}

type roundTripper struct{ base http.RoundTripper }

func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	clone := req.Clone(req.Context()) // a RoundTripper must not change its request
	if err := Inject(req.Context(), clone.Header); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	return t.base.RoundTrip(clone)
}

// HTTPMiddleware puts the request's context into its context.Context for plain
// HTTP handlers, and the ids into the response. A duplicated or malformed tenant
// is answered with 400. Calls without a tenant are platform calls.
func HTTPMiddleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc, err := Extract(r.Header)
		InjectResponse(&rc, w.Header())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		rc.Platform = rc.TenantID.IsZero()
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), rc)))
	})
}
