package rpc

import (
	"net/http"
	"slices"

	"connectrpc.com/connect/v2"
)

// getEncodings are the values of the query parameter encoding of a GET.
var getEncodings = []string{"json", "proto"}

// errGetQuery is the error of a GET whose message cannot be found. Source:
// https://connectrpc.com/docs/protocol/#unary-get-request
var errGetQuery = connect.NewError(connect.CodeInvalidArgument, "a GET of an RPC needs the query parameters "+
	"encoding (json or proto) and message, such as ?encoding=json&message=%7B%7D, and no body: add them, or send a "+
	"POST")

// explainGet answers a GET without the message's encoding, or with a body, by an error that names what is missing,
// where next answers HTTP 415 without a body. Other answers of next stay, such as HTTP 405 of methods with side
// effects.
func explainGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet ||
			r.ContentLength == 0 && slices.Contains(getEncodings, r.URL.Query().Get("encoding")) {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&getWriter{ResponseWriter: w, request: r}, r)
	})
}

// getWriter replaces an answer of HTTP 415.
type getWriter struct {
	http.ResponseWriter
	request *http.Request
}

// Unwrap returns the underlying writer for http.ResponseController.
func (w *getWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements [http.Flusher].
func (w *getWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() } // as the writer does

// WriteHeader implements [http.ResponseWriter].
func (w *getWriter) WriteHeader(status int) {
	if status != http.StatusUnsupportedMediaType {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.Header().Del("Accept-Post")
	_ = rpcErrors.Write(w.ResponseWriter, w.request, errGetQuery) // it fails if the client has disconnected
}
