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
		contentType := r.Header.Get("Content-Type")
		if strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+") {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, http.NewResponseController(w))))
			return
		}
		if r.ContentLength != 0 {
			r = timed(w, r, timeout)
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

// timedBody is a request's body that must be there by a deadline.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	arrived bool
}

// timed returns r with a body that has until timeout to arrive, if the connection can do
// so. It is a copy, as http.MaxBytesHandler makes: by the original's body net/http sees
// whether the connection can take another request.
func timed(w http.ResponseWriter, r *http.Request, timeout time.Duration) *http.Request {
	copied := &struct {
		http.Request

		body    timedBody
		control http.ResponseController
	}{Request: *r, control: *http.NewResponseController(w)}
	if copied.control.SetReadDeadline(time.Now().Add(timeout)) != nil {
		return r
	}
	copied.body = timedBody{ReadCloser: r.Body, control: &copied.control}
	copied.Body = &copied.body
	return &copied.Request
}

// Read implements [io.Reader]. Once the body is there the call may take its time, and the
// connection is watched for the client's leaving again.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && !b.arrived {
		b.arrived = true
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
