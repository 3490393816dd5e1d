package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
)

const (
	// preflightSeconds is the time for which a browser may cache the answer to a preflight request.
	preflightSeconds = 600
	// maxOrigins bounds the origins, and maxOriginHeaders each header list of an origin.
	maxOrigins, maxOriginHeaders = 1024, 64
)

// Origin is an origin whose pages may call the gateway from a browser.
type Origin struct {
	// Origin is a scheme, a host and, unless it is the scheme's default, a port:
	// "https://app.example.com".
	Origin string
	// Headers are request headers that pages may send, and Exposed are response headers that they
	// may read, in addition to those of Headgate's protocols.
	Headers, Exposed []string
}

// crossOrigin returns a middleware that allows pages of the given origins to call the gateway
// (Fetch standard, "CORS protocol"); without origins, it changes nothing. Wildcards in origins and
// headers are errors. Credentials that a browser adds by itself (cookies, client certificates) are
// never allowed: the gateway reads the Authorization header only.
func crossOrigin(origins []Origin) (func(http.Handler) http.Handler, error) {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }, nil
	}
	if err := CheckOrigins(origins...); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	contract := contextkit.Headers()
	allowed := append(
		append(connectcors.AllowedHeaders(), headerAuthorization, headerKey, "If-None-Match", contextkit.HeaderExplain,
			"Last-Event-ID"),
		contract...,
	)
	exposed := append(
		append(connectcors.ExposedHeaders(), "ETag", "Retry-After", "WWW-Authenticate", "Allow",
			contextkit.HeaderDecision),
		contract...,
	)
	known := map[string]*cors.Cors{}
	for _, origin := range origins {
		known[origin.Origin] = cors.New(cors.Options{
			AllowedOrigins: []string{origin.Origin},
			AllowedMethods: append(connectcors.AllowedMethods(), http.MethodHead, http.MethodPut, http.MethodPatch,
				http.MethodDelete),
			AllowedHeaders: append(allowed[:len(allowed):len(allowed)], origin.Headers...),
			ExposedHeaders: append(exposed[:len(exposed):len(exposed)], origin.Exposed...),
			MaxAge:         preflightSeconds,
		})
	}
	others := cors.New(
		cors.Options{AllowOriginFunc: func(string) bool { return false }},
	) // so that answers vary by the origin
	return func(next http.Handler) http.Handler {
		handlers, rest := map[string]http.Handler{}, others.Handler(next)
		for origin, rules := range known {
			handlers[origin] = rules.Handler(next)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler := rest
			if origin := r.Header["Origin"]; len(origin) == 1 && handlers[origin[0]] != nil {
				handler = handlers[origin[0]]
			}
			handler.ServeHTTP(w, r)
		})
	}, nil
}

// CheckOrigins returns a [config.FieldError] for an origin that no browser sends or that is listed
// twice, and for a header list with a wildcard or an invalid name.
func CheckOrigins(origins ...Origin) error {
	if len(origins) > maxOrigins {
		return config.Wrong("origins", "has %d origins, want at most %d", len(origins), maxOrigins)
	}
	known := map[string]bool{}
	for _, origin := range origins {
		if err := origin.validate(); err != nil {
			return config.Wrong("origins", "%v", err)
		}
		if known[origin.Origin] {
			return config.Wrong("origins", "has %q twice", origin.Origin)
		}
		known[origin.Origin] = true
	}
	return nil
}

// validate returns an error that names an invalid header, or the part of the origin which browsers
// never send, such as a path.
func (o Origin) validate() error {
	u, err := url.Parse(o.Origin)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || o.Origin != u.Scheme+"://"+u.Host ||
		strings.Contains(o.Origin, "*") {
		return fmt.Errorf("%q is not an origin such as https://app.example.com", o.Origin)
	}
	if port := u.Port(); strings.ToLower(o.Origin) != o.Origin ||
		strings.ContainsFunc(o.Origin, func(r rune) bool { return r > '~' }) ||
		u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" || strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf(
			"no browser sends the origin %q: write it in lower case, in ASCII (punycode), and without the scheme's "+
				"default port",
			o.Origin,
		)
	}
	for _, list := range [...][]string{o.Headers, o.Exposed} {
		if len(list) > maxOriginHeaders {
			return fmt.Errorf("the origin %s has %d headers, want at most %d", o.Origin, len(list), maxOriginHeaders)
		}
		for _, name := range list {
			if name == "*" || !contextkit.ValidID(name) {
				return fmt.Errorf(
					"the origin %s has %q, which is not the name of a header: list each header by its name", o.Origin,
					name,
				)
			}
		}
	}
	return nil
}
