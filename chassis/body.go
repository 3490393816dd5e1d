package chassis

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
)

// boundBody gives a request's body until timeout to arrive, so that a client
// which trickles it holds no call for ever. Of streams of requests (gRPC, gRPC-Web
// and Connect's) only the handler knows when a message is due: see [ReceiveBy].
func boundBody(timeout time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		contentType := r.Header.Get("Content-Type")
		if strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+") {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, control)))
			return
		}
		if r.ContentLength != 0 && control.SetReadDeadline(time.Now().Add(timeout)) == nil {
			// Once the body is there the call may take its time, and the
			// connection is watched for the client's leaving again.
			// A copy, as http.MaxBytesHandler makes: by the original's body net/http
			// sees whether the connection can take another request.
			timed := *r
			timed.Body = &timedBody{ReadCloser: r.Body, control: control}
			r = &timed
		}
		next.ServeHTTP(w, r)
	})
}

type controlKey struct{}

// ReceiveBy gives the next message of the call in ctx until deadline to arrive;
// received ends that. A message that is late fails Receive.
func ReceiveBy(ctx context.Context, deadline time.Time) (received func()) {
	control, ok := ctx.Value(controlKey{}).(*http.ResponseController)
	if !ok || control.SetReadDeadline(deadline) != nil {
		return func() {} // the whole body is timed, or the transport does so itself
	}
	return func() { _ = control.SetReadDeadline(time.Time{}) }
}

type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	arrived bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && !b.arrived {
		b.arrived = true
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
