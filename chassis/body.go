package chassis

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// boundBody gives a request's body until timeout to arrive, so that a client
// which trickles it holds no call for ever. Streams of requests (gRPC, gRPC-Web
// and Connect's) are left out: theirs may rightly come slowly.
func boundBody(timeout time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		contentType := r.Header.Get("Content-Type")
		if r.ContentLength == 0 || strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+") {
			next.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		if control.SetReadDeadline(time.Now().Add(timeout)) == nil {
			// Once the body is there the call may take its time, and the
			// connection is watched for the client's leaving again.
			// A copy, as http.MaxBytesHandler makes: by the original's body net/http
			// sees whether the connection can take another request.
			timed := *r
			timed.Body = &timedBody{ReadCloser: r.Body, arrived: sync.OnceFunc(func() { _ = control.SetReadDeadline(time.Time{}) })}
			r = &timed
		}
		next.ServeHTTP(w, r)
	})
}

type timedBody struct {
	io.ReadCloser
	arrived func()
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.arrived()
	}
	return n, err
}
