package edge

import (
	"bytes"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/rpc"
)

// errorWriter writes errors in the format of the client's protocol: Connect's JSON for REST.
var errorWriter = connecthttp.NewErrorWriter()

// invalid returns INVALID_ARGUMENT for a request that cannot be parsed, with the field if it is
// known (google.rpc.BadRequest).
func invalid(err error) error {
	out := connect.NewError(connect.CodeInvalidArgument, err.Error())
	var field, reason string
	var syntax *transcode.SyntaxError
	var f *fault
	switch {
	case errors.As(err, &f):
		field, reason = f.field, f.reason
	case errors.As(err, &syntax):
		field, reason = syntax.Field, syntax.Message
	}
	if field == "" {
		return out
	}
	return rpc.WithDetails(
		out,
		&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: reason}},
		},
	)
}

// httpError is an error of a request with its own HTTP status.
type httpError struct {
	error
	status        int    // 0: the status of the error's code
	header, value string // "": no header
}

// Unwrap returns the wrapped error.
func (e *httpError) Unwrap() error { return e.error }

// statusOf returns the HTTP status of a call that could not be received and ended with an error; 0:
// the status of the error's code. The pipeline may have rejected the call for another reason, such
// as an exhausted budget.
func (e *httpError) statusOf(err error) int {
	switch code := connect.CodeOf(err); {
	case code == connect.CodeDeadlineExceeded: // before the request arrived
		return http.StatusRequestTimeout
	case code == codeOf(e.error):
		return e.status
	}
	return 0
}

// codeOf returns the code of an error of a request.
func codeOf(err error) connect.Code {
	if known, ok := errors.AsType[*connect.Error](err); ok {
		return known.Code()
	}
	return connect.CodeInvalidArgument
}

const headerAcceptEncoding = "Accept-Encoding"

// fail writes the error of a call. s is the call's stream; nil: no path matches.
func (r *REST) fail(w http.ResponseWriter, req *http.Request, s *stream, err error) {
	status := 0
	if s != nil {
		s.mu.Lock()
		refused := s.refused
		s.mu.Unlock()
		if refused != nil {
			status = refused.statusOf(err)
			if refused.header != "" && status == refused.status {
				w.Header().Set(refused.header, refused.value)
			}
		} else if connect.CodeOf(err) == connect.CodeDeadlineExceeded && rpc.Late(req.Context()) != nil {
			status = http.StatusRequestTimeout
		}
	}
	WriteError(w, req, err, status)
}

// WriteError writes an error as JSON, with status, or with the HTTP status of the error's code if
// status is 0, and with the headers Retry-After (RFC 9110 §10.2.3) and WWW-Authenticate (RFC 6750
// §3). A request of a protocol other than REST is answered in that protocol. The message of an
// error that is not a Connect error of the gateway is hidden.
func WriteError(w http.ResponseWriter, req *http.Request, err error, status int) {
	public := rpc.Public(err)
	header := w.Header()
	switch public.Code() {
	case connect.CodeUnauthenticated:
		header.Set("WWW-Authenticate", rpc.Challenge(public))
	case connect.CodeResourceExhausted, connect.CodeUnavailable:
		for _, detail := range public.Details() {
			message, err := connectproto.UnmarshalErrorDetail(detail)
			if err != nil {
				continue
			}
			switch known := message.(type) {
			case *errdetails.RetryInfo:
				seconds := math.Ceil(known.GetRetryDelay().AsDuration().Seconds())
				header.Set("Retry-After", strconv.FormatFloat(max(seconds, 1), 'f', -1, 64))
			case *errdetails.ErrorInfo:
				if known.GetReason() == string(rpc.ReasonResponseTooLarge) && status == 0 {
					status = http.StatusInternalServerError
				}
			}
		}
	}
	if req.Method == http.MethodPost && strings.HasPrefix(req.Header.Get("Content-Type"), "application/grpc") {
		_ = errorWriter.Write(w, req, public) // an error means that the client has disconnected
		return
	}
	_ = errorWriter.Write(&withStatus{w, status}, plainRequest, public) // likewise
}

// plainRequest is a request of no RPC protocol, which errorWriter answers with JSON.
var plainRequest = &http.Request{Method: http.MethodPut, Header: http.Header{}}

// withStatus replaces the HTTP status of an error's code; 0: it does not.
type withStatus struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *withStatus) WriteHeader(status int) {
	if w.status != 0 {
		status = w.status
	}
	w.ResponseWriter.WriteHeader(status)
}

// errorJSON returns an error, with its details, as the JSON of a response body.
func (r *REST) errorJSON(err error) []byte {
	var text memory
	_ = errorWriter.Write(&text, plainRequest, rpc.Public(err)) // writing to memory cannot fail
	return text.body.Bytes()
}

// memory is an [http.ResponseWriter] that stores the body.
type memory struct {
	header http.Header
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (m *memory) Header() http.Header {
	if m.header == nil {
		m.header = http.Header{}
	}
	return m.header
}

// WriteHeader implements [http.ResponseWriter].
func (m *memory) WriteHeader(int) {}

// Write implements [http.ResponseWriter].
func (m *memory) Write(text []byte) (int, error) { return m.body.Write(text) }

// Options of a [REST] handler.
type Options struct {
	// Query configures how query strings are parsed.
	Query Query
	// KeepAlive is the idle time after which a server stream sends a keep-alive. 0:
	// [DefaultKeepAlive]; below 0: never.
	KeepAlive time.Duration
	// Pages are paths that another handler answers for GET and HEAD: other methods are refused with
	// 405 and the methods allowed (RFC 9110 §15.5.6).
	Pages []string
}
