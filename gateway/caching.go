package gateway

import (
	"net/http"
	"strings"

	"github.com/headgate/headgate/contextkit"
)

// privately keeps what answers a GET from being shared between credentials: a
// node may say how long its answer is fresh, never that a shared cache may keep
// it, and caches know what the answer depends on. What says nothing is not kept.
// Sources: RFC 9111 §5.2.2, §3.5; Connect protocol, "Unary-Get-Request".
func privately(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&privateWriter{ResponseWriter: w}, r)
	})
}

// privateWriter sets the caching headers when the answer begins.
type privateWriter struct {
	http.ResponseWriter
	begun bool
}

// Unwrap lets http.ResponseController find the connection.
func (w *privateWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *privateWriter) WriteHeader(status int) {
	if !w.begun && status >= http.StatusOK {
		w.begun = true
		header := w.Header()
		kept := []string{"private"}
		for _, value := range header.Values("Cache-Control") {
			for directive := range strings.SplitSeq(value, ",") {
				directive = strings.TrimSpace(directive)
				switch name, _, _ := strings.Cut(strings.ToLower(directive), "="); name {
				case "", "private", "public", "s-maxage", "proxy-revalidate":
				default:
					kept = append(kept, directive)
				}
			}
		}
		switch known := status == http.StatusOK || status == http.StatusNotModified; {
		case !known, len(kept) == 1 && header.Get("ETag") == "":
			kept = []string{"no-store"}
		case len(kept) == 1: // each use is checked against the entity tag
			kept = append(kept, "no-cache")
		}
		header.Set("Cache-Control", strings.Join(kept, ", "))
		header.Add("Vary", "Authorization, Accept, Accept-Encoding, "+contextkit.HeaderTenantID)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *privateWriter) Write(text []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(text)
}

// Flush implements [http.Flusher], which streams need.
func (w *privateWriter) Flush() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client is gone if this fails
}
