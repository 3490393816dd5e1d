package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	connectcors "connectrpc.com/cors"
	"github.com/headgate/headgate/contextkit"
	"github.com/rs/cors"
)

// preflightSeconds is how long a browser may remember what it was told.
const preflightSeconds = 600

// crossOrigin lets pages of the given origins call the edge (Fetch standard,
// "CORS protocol"); without any, it changes nothing. An origin is scheme and host, and a wildcard
// is refused: whoever is let in is named.
func crossOrigin(origins []string) (func(http.Handler) http.Handler, error) {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }, nil
	}
	for _, origin := range origins {
		u, err := url.Parse(origin)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || origin != u.Scheme+"://"+u.Host || strings.Contains(origin, "*") {
			return nil, fmt.Errorf("gateway: %q is no origin such as https://app.example.com", origin)
		}
	}
	contract := contextkit.Headers()
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: append(connectcors.AllowedMethods(), http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete),
		AllowedHeaders: append(append(connectcors.AllowedHeaders(), headerAuthorization, headerKey, "If-None-Match", contextkit.HeaderExplain, "Last-Event-ID"), contract...),
		ExposedHeaders: append(append(connectcors.ExposedHeaders(), "ETag", "Retry-After", "WWW-Authenticate", "Allow", contextkit.HeaderDecision), contract...),
		MaxAge:         preflightSeconds,
	}).Handler, nil
}
