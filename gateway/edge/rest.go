// Package edge is the gateway's REST surface: it turns a plain HTTP request
// into a call by the google.api.http rules of the method table, and the call's
// answer into plain JSON, a stream of answers into Server-Sent Events or lines
// of JSON.
//
// A request's path, query and body become one protobuf message, transcoded by
// the same program as Connect's JSON; the call then takes the same pipeline as
// every other protocol. Errors are Connect's JSON errors with their HTTP
// status.
//
// Source: google/api/http.proto, https://connectrpc.com/docs/protocol#error-codes.
package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Protocol is what CallInfo.Protocol says of a REST call.
const Protocol = "rest"

// headerTimeout is Connect's way to ask for a shorter deadline; REST clients
// may use it too.
const headerTimeout = "Connect-Timeout-Ms"

// REST serves the HTTP mappings of a method table.
type REST struct {
	server   *connect.Server
	bindings []*binding
	errors   *connecthttp.ErrorWriter
	maxBody  int64
	encodings
}

// binding is a rule of a method, compiled.
type binding struct {
	method   *policy.Method
	verb     string // HTTP method
	route    string // the path's template, as written
	template *template
	// parameters are the fields of the template's variables.
	parameters []parameter

	body     string           // "", "*" or a field
	bodyName string           // the field's name in JSON
	answer   protowire.Number // the answer's field that is the response; 0: all of it
}

// appendJSON appends the JSON of an answer.
func (b *binding) appendJSON(dst, wire []byte) ([]byte, error) {
	if b.answer != 0 {
		return b.method.Output.AppendFieldJSON(dst, wire, b.answer)
	}
	return b.method.Output.AppendJSON(dst, wire)
}

// NewREST returns a handler that answers by server. Bodies are bounded by
// maxBody bytes, compressed and not; compressors are those that it speaks, the
// preferred first. A rule that cannot be served, or that can never be reached, is
// an error.
func NewREST(server *connect.Server, table *policy.Table, maxBody int, compressors ...connect.Compressor) (*REST, error) {
	r := &REST{server: server, errors: connecthttp.NewErrorWriter(), maxBody: int64(maxBody), encodings: compressors}
	seen := map[string]string{}
	for _, method := range table.Methods() {
		for _, rule := range method.Rules {
			b, err := newBinding(method, rule)
			if err != nil {
				return nil, fmt.Errorf("edge: %s: %w", method.Spec.Procedure, err)
			}
			shape := fmt.Sprintf("%s %v:%s", b.verb, b.template.segments, b.template.verb)
			if other, taken := seen[shape]; taken {
				return nil, fmt.Errorf("edge: %s and %s are mapped to the same path", other, method.Spec.Procedure)
			}
			seen[shape] = method.Spec.Procedure
			r.bindings = append(r.bindings, b)
		}
	}
	slices.SortStableFunc(r.bindings, func(a, b *binding) int { return b.template.specificity() - a.template.specificity() })
	return r, nil
}

func newBinding(method *policy.Method, rule *annotations.HttpRule) (*binding, error) {
	b := &binding{method: method, body: rule.GetBody()}
	var path string
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.verb, path = http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		b.verb, path = http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		b.verb, path = http.MethodPost, pattern.Post
	case *annotations.HttpRule_Delete:
		b.verb, path = http.MethodDelete, pattern.Delete
	case *annotations.HttpRule_Patch:
		b.verb, path = http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Custom:
		b.verb, path = pattern.Custom.GetKind(), pattern.Custom.GetPath()
	default:
		return nil, errors.New("its HTTP rule has no path")
	}
	if method.Spec.StreamType&connect.StreamTypeClient != 0 {
		return nil, errors.New("streams of requests have no REST mapping")
	}
	if name := rule.GetResponseBody(); name != "" {
		field := method.Output.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil {
			return nil, fmt.Errorf("response_body names %q, which is no field", name)
		}
		b.answer = field.Number()
	}
	b.route = path
	var err error
	if b.template, err = parseTemplate(path); err != nil {
		return nil, err
	}
	for _, v := range b.template.variables {
		p, err := newParameter(method.Input.Descriptor(), v.field, byProtoName)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", path, err)
		}
		b.parameters = append(b.parameters, p)
	}
	if b.body != "" && b.body != "*" {
		field := method.Input.Descriptor().Fields().ByName(protoreflect.Name(b.body))
		if field == nil {
			return nil, fmt.Errorf("body names %q, which is no field", b.body)
		}
		if b.bodyName = transcode.Name(field); b.bodyName == "" {
			return nil, fmt.Errorf("body names %q, whose names in JSON are those of other fields", b.body)
		}
	}
	return b, nil
}

// ServeHTTP implements [http.Handler].
func (r *REST) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, values, allowed := r.find(req)
	if b == nil {
		r.notFound(w, req, allowed)
		return
	}
	ctx, cancel, err := withTimeout(req)
	defer cancel()
	if err != nil {
		r.fail(w, req, err)
		return
	}
	answer := &single{stream: stream{
		binding: b, values: values, request: req, body: http.MaxBytesReader(w, req.Body, r.maxBody), maxBody: r.maxBody, encodings: r.encodings,
		info: connect.CallInfo{Spec: b.method.Spec, PeerAddr: req.RemoteAddr, Protocol: Protocol, Codec: connect.CodecNameJSON},
	}}
	info := &answer.info
	for key, list := range req.Header {
		info.RequestHeader().SetValues(key, list)
	}
	var out responder = answer
	if b.method.Spec.StreamType == connect.StreamTypeServer {
		out = &events{stream: &answer.stream, writer: w, sse: acceptsEvents(req)}
	}
	//nolint:contextcheck // ctx is the request's own
	err = r.server.Call(ctx, b.method.Spec.Procedure, info, out)
	if !out.begun() {
		copyHeaders(w.Header(), info.ResponseHeader(), info.ResponseTrailer())
		if err == nil {
			err = out.finish(w)
		}
		if err != nil {
			r.fail(w, req, err)
		}
		return
	}
	out.end(err)
}

// responder is a REST request's [connect.ServerStream] with the end of its
// response.
type responder interface {
	connect.ServerStream
	// begun reports whether the response has begun to be written.
	begun() bool
	// finish writes the response of a call that ended well before it had begun.
	finish(w http.ResponseWriter) error
	// end ends a response that had begun.
	end(err error)
}

func copyHeaders(to http.Header, from ...*connect.Header) {
	for _, header := range from {
		for key, list := range header.All() {
			if had := to[key]; len(had) > 0 {
				list = append(had, list...)
			}
			to[key] = list
		}
	}
}

// find returns the first binding that fits, or the HTTP methods that the path
// has.
func (r *REST) find(req *http.Request) (found *binding, values []string, allowed []string) {
	path := req.URL.EscapedPath()
	for _, b := range r.bindings {
		values, ok := b.template.match(path)
		switch {
		case !ok:
		case b.verb == req.Method:
			return b, values, nil
		case !slices.Contains(allowed, b.verb):
			allowed = append(allowed, b.verb)
		}
	}
	return nil, nil, allowed
}

func (r *REST) notFound(w http.ResponseWriter, req *http.Request, allowed []string) {
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		err := connect.Errorf(connect.CodeUnimplemented, "%s is not allowed at %s: use %s", req.Method, req.URL.Path, strings.Join(allowed, " or "))
		r.fail(notAllowed{w}, req, err)
		return
	}
	err := connect.Errorf(connect.CodeNotFound, "nothing is served at %s", req.URL.Path)
	switch service, method, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/"); {
	case strings.HasPrefix(req.Header.Get("Content-Type"), "application/grpc"):
		err = connect.Errorf(connect.CodeUnimplemented, "%s is not served", req.URL.Path)
	case ok && strings.Contains(service, ".") && !strings.Contains(method, "/"):
		// The path of an RPC: Connect's clients know a bare 404 as UNIMPLEMENTED.
		http.NotFound(w, req)
		return
	}
	r.fail(w, req, err)
}

// notAllowed answers with HTTP 405 in place of the status of UNIMPLEMENTED.
type notAllowed struct{ http.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (w notAllowed) WriteHeader(status int) {
	if status == http.StatusNotImplemented {
		status = http.StatusMethodNotAllowed
	}
	w.ResponseWriter.WriteHeader(status)
}

// fail writes an error in the form that the client understands. Only an error
// of our own making says anything.
func (r *REST) fail(w http.ResponseWriter, req *http.Request, err error) {
	_ = r.errors.Write(w, req, chassis.Public(err)) // the client is gone if this fails
}

func withTimeout(req *http.Request) (context.Context, context.CancelFunc, error) {
	text := req.Header.Get(headerTimeout)
	if text == "" {
		return req.Context(), func() {}, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || len(text) > 10 { // Connect's own bound
		return req.Context(), func() {}, connect.Errorf(connect.CodeInvalidArgument, "%s is %q: send milliseconds, at most ten digits", headerTimeout, excerpt.Text(text, excerpt.Name))
	}
	ctx, cancel := context.WithTimeout(req.Context(), time.Duration(ms)*time.Millisecond)
	return ctx, cancel, nil
}
