package edge

import (
	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/rpc"
)

// Request describes the HTTP request of a call over REST.
type Request struct {
	// Method is the HTTP method, and Route the template of the path.
	Method, Route string
	// Path and Scheme are those of the URL, and UserAgent is the header.
	Path, Scheme, UserAgent string
	// Begun reports whether the response headers have been sent.
	Begun bool
}

// RequestOf returns the request of a stream that [REST] made; zero for any other stream.
func RequestOf(of connect.ServerStream) Request {
	var s *stream
	out := Request{}
	switch known := of.(type) {
	case *unary:
		s = &known.stream
	case *events:
		s, out.Begun = known.stream, known.begun()
	default:
		return out
	}
	out.Method, out.Route = s.request.Method, s.binding.route
	out.Path, out.UserAgent, out.Scheme = s.request.URL.Path, s.request.UserAgent(), "http"
	if rpc.IsSecure(s.request) {
		out.Scheme = "https"
	}
	return out
}
