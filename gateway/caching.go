package gateway

import (
	"net/http"
	"strings"

	"github.com/headgate/headgate/contextkit"
)

// privateCaching keeps shared caches from storing answers to GET and HEAD: a node's Cache-Control
// may state how long a client's own cache may reuse the answer, and answers vary by the credential.
// An answer without Cache-Control and ETag is not stored at all.
// Sources: RFC 9111 §5.2.2, §3.5; Connect protocol, "Unary-Get-Request".
func privateCaching(next http.Handler) http.Handler {
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

// Unwrap returns the underlying writer for http.ResponseController.
func (w *privateWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *privateWriter) WriteHeader(status int) {
	if !w.begun && status >= http.StatusOK {
		w.begun = true
		header := w.Header()
		directives := []string{"private"}
		for _, value := range header.Values("Cache-Control") {
			for directive := range strings.SplitSeq(value, ",") {
				directive = strings.TrimSpace(directive)
				switch name, _, _ := strings.Cut(strings.ToLower(directive), "="); name {
				case "", "private", "public", "s-maxage", "proxy-revalidate":
				default:
					directives = append(directives, directive)
				}
			}
		}
		switch known := status == http.StatusOK || status == http.StatusNotModified; {
		case !known, len(directives) == 1 && header.Get("ETag") == "":
			directives = []string{"no-store"}
		case len(directives) == 1: // caches revalidate each use by the entity tag
			directives = append(directives, "no-cache")
		}
		header.Set("Cache-Control", strings.Join(directives, ", "))
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

// Flush implements [http.Flusher] for streams.
func (w *privateWriter) Flush() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // it fails only if the client has disconnected
}
