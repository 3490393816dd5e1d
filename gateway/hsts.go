package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/headgate/headgate/internal/rpc"
)

// HSTS is the policy that browsers call the gateway's host over TLS only (RFC 6797).
type HSTS struct {
	// MaxAge is the time for which a browser applies the policy after an answer. 0: no policy.
	MaxAge time.Duration `yaml:"max_age"`
	// IncludeSubdomains extends the policy to all subdomains of the host, including those of other
	// services.
	IncludeSubdomains bool `yaml:"include_subdomains"`
	// Preload consents to the inclusion of the host in browsers' preload lists, from which it is
	// hard to remove. It requires IncludeSubdomains and a MaxAge of a year
	// (https://hstspreload.org).
	Preload bool `yaml:"preload"`
}

// preloadAge is the shortest MaxAge of a preloaded host.
const preloadAge = 365 * 24 * time.Hour

// Validate returns an error for an invalid policy.
func (h HSTS) Validate() error {
	switch {
	case h.MaxAge < 0, h.MaxAge > 0 && h.MaxAge < time.Second:
		return errors.New("max_age must be 0 or at least 1s")
	case h.Preload && (!h.IncludeSubdomains || h.MaxAge < preloadAge):
		return errors.New("preload requires include_subdomains and a max_age of at least 8760h")
	case h.MaxAge == 0 && h.IncludeSubdomains:
		return errors.New("include_subdomains requires a max_age")
	}
	return nil
}

// header returns the value of the Strict-Transport-Security header.
func (h HSTS) header() string {
	value := "max-age=" + strconv.FormatInt(int64(h.MaxAge/time.Second), 10)
	if h.IncludeSubdomains {
		value += "; includeSubDomains"
	}
	if h.Preload {
		value += "; preload"
	}
	return value
}

// handler sends the policy with every answer to a client that uses TLS. Other clients would ignore
// it (RFC 6797 §7.2). Without a policy it returns next.
func (h HSTS) handler(next http.Handler) http.Handler {
	if h.MaxAge == 0 {
		return next
	}
	value := []string{h.header()}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rpc.IsSecure(r) {
			w.Header()["Strict-Transport-Security"] = value
		}
		next.ServeHTTP(w, r)
	})
}
