package rpc

import (
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

// rpcMux is the mux in which connecthttp mounts procedures; it replaces the handlers of services' unknown methods, and
// explains GETs without a message.
type rpcMux struct {
	*http.ServeMux
	server *Server
}

// Handle registers a handler.
func (m rpcMux) Handle(pattern string, handler http.Handler) {
	if strings.HasSuffix(pattern, "/") { // of a service's unknown methods
		handler = unknownMethod(handler, m.server.fallback)
	} else {
		handler = explainGet(handler)
	}
	m.ServeMux.Handle(pattern, handler)
}

// rpcErrors writes errors in the form of the client's protocol.
var rpcErrors = connecthttp.NewErrorWriter()

// unknownMethod answers calls of a method that a service does not have by next, but over HTTP/1.1,
// where next answers every stream with HTTP 505, by the protocol's own error. Requests that are not
// RPCs are served by plain, if it is set.
func unknownMethod(next, plain http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch isRPC := r.Method == http.MethodPost && rpcErrors.IsSupported(r); {
		case !isRPC && plain != nil:
			plain.ServeHTTP(w, r)
		case isRPC && r.ProtoMajor < 2:
			_ = rpcErrors.Write(
				w, r, connect.Errorf(connect.CodeUnimplemented, "%s is not served", r.URL.Path),
			) // it fails if the client has disconnected
		default:
			next.ServeHTTP(w, r)
		}
	})
}
