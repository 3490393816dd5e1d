// Package edge is the gateway's REST interface. It turns HTTP requests into calls by the
// google.api.http rules of the method table (HTTP transcoding), and writes answers as JSON, and
// streams of answers as Server-Sent Events or JSON lines.
//
// The path, query and body of a request become one protobuf message, transcoded by the same program
// as Connect's JSON; the call then passes through the same pipeline as calls of other protocols.
// Errors are Connect's JSON errors with their HTTP status.
//
// Source: google/api/http.proto, https://connectrpc.com/docs/protocol#error-codes.
package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
)

// Protocol is the CallInfo.Protocol of a REST call.
const Protocol = "rest"

// headerTimeout is Connect's header for a shorter deadline, which REST clients may send too.
const headerTimeout = "Connect-Timeout-Ms"

// REST serves the HTTP mappings of a method table.
type REST struct {
	server    *connect.Server
	bindings  []*binding
	maxBody   int64
	query     Query
	keepAlive time.Duration
	pages     []string
	encodings
}

// binding is a compiled HTTP rule of a method.
type binding struct {
	method   *policy.Method
	verb     string // HTTP method
	route    string // the path's template, as written
	template *template
	// parameters are the fields of the template's variables.
	parameters []parameter

	body       string           // "", "*" or a field
	bodyStep   step             // the step to that field; number 0: none
	rawBody    bool             // the body has any content type (google.api.HttpBody)
	mask       protowire.Number // the field mask that a body fills; 0: none
	answer     protowire.Number // the field of the answer that is the response; 0: all fields
	rawAnswers bool             // the response has any content type
}

// inBody reports whether a path variable sets a field inside the body's field.
func (b *binding) inBody(p *parameter) bool {
	return b.body == "*" || b.bodyStep.number != 0 && p.steps[0].number == b.bodyStep.number
}

// appendJSON appends the JSON of an answer.
func (b *binding) appendJSON(dst, wire []byte) ([]byte, error) {
	if b.answer != 0 {
		return b.method.Output.AppendFieldJSON(dst, wire, b.answer)
	}
	return b.method.Output.AppendJSON(dst, wire)
}

// NewREST returns a handler that calls server. Bodies, and each message of a client stream, are
// bounded by maxBody bytes, compressed and decompressed; compressors are the supported encodings,
// the preferred first. A rule that cannot be served or never matches is an error.
func NewREST(
	server *connect.Server, table *policy.Table, maxBody int, options Options, compressors ...connect.Compressor,
) (*REST, error) {
	r := &REST{
		server:    server,
		maxBody:   int64(maxBody),
		encodings: compressors,
		query:     options.Query,
		keepAlive: cmp.Or(options.KeepAlive, DefaultKeepAlive),
		pages:     options.Pages,
	}
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
	slices.SortStableFunc(r.bindings,
		func(a, b *binding) int { return b.template.specificity() - a.template.specificity() })
	return r, nil
}

// Pattern returns the HTTP method and the path of a rule as written; "" if it has none.
func Pattern(rule *annotations.HttpRule) (verb, path string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, pattern.Post
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, pattern.Delete
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Custom:
		return pattern.Custom.GetKind(), pattern.Custom.GetPath()
	}
	return "", ""
}

func newBinding(method *policy.Method, rule *annotations.HttpRule) (*binding, error) {
	b := &binding{method: method, body: rule.GetBody()}
	if b.verb, b.route = Pattern(rule); b.verb == "" {
		return nil, errors.New("its HTTP rule has no path")
	}
	input, output := method.Input.Descriptor(), method.Output.Descriptor()
	if method.Spec.StreamType&connect.StreamTypeClient != 0 && b.body == "" {
		return nil, errors.New("a client stream needs a body in its HTTP rule")
	}
	b.rawAnswers = isHTTPBody(output)
	if name := rule.GetResponseBody(); name != "" {
		field := output.Fields().ByName(protoreflect.Name(name))
		if field == nil {
			return nil, fmt.Errorf("response_body names %q, which is not a field", name)
		}
		b.answer, b.rawAnswers = field.Number(), !field.IsList() && isHTTPBody(field.Message())
	}
	var err error
	if b.template, err = parseTemplate(b.route); err != nil {
		return nil, err
	}
	for _, v := range b.template.variables {
		p, err := newParameter(input, v.field, byProtoName)
		if err != nil {
			return nil, fmt.Errorf("path %q: %s: %w", b.route, v.field, err)
		}
		b.parameters = append(b.parameters, p)
	}
	return b, b.setBody(input)
}

// setBody compiles the rule's body.
func (b *binding) setBody(input protoreflect.MessageDescriptor) error {
	switch b.body {
	case "":
		return nil
	case "*":
		b.rawBody = isHTTPBody(input)
		return nil
	}
	field := input.Fields().ByName(protoreflect.Name(b.body))
	if field == nil {
		return fmt.Errorf("body names %q, which is not a field", b.body)
	}
	b.bodyStep = stepTo(field)
	if b.bodyStep.key == "" {
		return fmt.Errorf("body names %q, whose JSON names are names of other fields", b.body)
	}
	if field.Message() != nil && !field.IsList() && !field.IsMap() {
		b.rawBody = isHTTPBody(field.Message())
		if b.verb == http.MethodPatch && !transcode.IsValue(field.Message()) {
			b.mask = maskField(input)
		}
	}
	return nil
}

// ServeHTTP implements [http.Handler].
func (r *REST) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, values, allowed := r.find(req)
	if b == nil {
		r.notFound(w, req, allowed)
		return
	}
	var ticket *Ticket
	if hasTicket(req.URL.RawQuery) {
		w.Header().Set("Referrer-Policy", "no-referrer")
		var err error
		if req, ticket, err = b.ticketed(req); err != nil {
			r.fail(w, req, nil, err)
			return
		}
	}
	ctx, cancel, err := withTimeout(req)
	defer cancel()
	if err != nil {
		r.fail(w, req, nil, err)
		return
	}
	answer := &unary{stream: stream{
		binding:   b,
		values:    values,
		request:   req,
		body:      http.MaxBytesReader(w, req.Body, r.maxBody),
		maxBody:   r.maxBody,
		encodings: r.encodings,
		query:     &r.query,
		info: connect.CallInfo{
			Spec:     b.method.Spec,
			PeerAddr: req.RemoteAddr,
			Protocol: Protocol,
			Codec:    connect.CodecNameJSON,
		},
	}}
	info := &answer.info
	for key, list := range req.Header {
		info.RequestHeader().SetValues(key, list)
	}
	var out responder = answer
	if b.method.Spec.StreamType&connect.StreamTypeServer != 0 {
		streamed := &events{
			stream: &answer.stream,
			rest:   r,
			writer: w,
			form:   formOf(req, b),
			ticket: ticket,
		}
		if ticket != nil {
			streamed.form = formEvents
		}
		answer.onReady = streamed.keepAlive
		defer streamed.close()
		out = streamed
		if b.method.Spec.StreamType == connect.StreamTypeBidi {
			_ = http.NewResponseController(w).EnableFullDuplex() // always enabled in HTTP/2
		}
	}
	//nolint:contextcheck // ctx is derived from the request's
	err = r.server.Call(ctx, b.method.Spec.Procedure, info, out)
	if streamed, ok := out.(*events); ok {
		streamed.close()
	}
	if !out.begun() {
		copyHeaders(w.Header(), info.ResponseHeader(), info.ResponseTrailer())
		if err == nil {
			err = out.finish(w)
		}
		if err != nil {
			r.fail(w, req, &answer.stream, err)
		}
		return
	}
	out.end(err)
}

// responder is the [connect.ServerStream] of a REST request, which also ends its response.
type responder interface {
	connect.ServerStream
	// begun reports whether writing the response has begun.
	begun() bool
	// finish writes the response of a call that succeeded before the response had begun.
	finish(w http.ResponseWriter) error
	// end ends a response that has begun.
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

// find returns the first binding that matches, or the HTTP methods that the path allows. HEAD is
// answered like GET (RFC 9110 §9.3.2), except for streams.
func (r *REST) find(req *http.Request) (found *binding, values []string, allowed []string) {
	var room [usualSegments]pathSegment
	path, ok := split(pathOf(req.URL), room[:])
	if !ok {
		return nil, nil, nil
	}
	var head *binding
	for _, b := range r.bindings {
		switch {
		case !b.template.matches(&path):
			continue
		case b.verb == req.Method:
			return b, b.template.values(&path), nil
		case b.verb == http.MethodGet && b.method.Spec.StreamType&connect.StreamTypeServer == 0:
			if req.Method == http.MethodHead && head == nil {
				head = b
			}
			if !slices.Contains(allowed, http.MethodHead) {
				allowed = append(allowed, http.MethodGet, http.MethodHead)
			}
			continue
		}
		if !slices.Contains(allowed, b.verb) {
			allowed = append(allowed, b.verb)
		}
	}
	if head != nil {
		return head, head.template.values(&path), nil
	}
	if len(allowed) == 0 && slices.Contains(r.pages, req.URL.Path) {
		allowed = []string{http.MethodGet, http.MethodHead}
	}
	return nil, nil, allowed
}

func (r *REST) notFound(w http.ResponseWriter, req *http.Request, allowed []string) {
	path := excerpt.Text(req.URL.Path, excerpt.Name)
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		if req.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		err := connect.Errorf(connect.CodeUnimplemented, "%s is not allowed at %s: use %s", req.Method, path,
			strings.Join(allowed, " or "))
		WriteError(w, req, err, http.StatusMethodNotAllowed)
		return
	}
	err := connect.Errorf(connect.CodeNotFound, "nothing is served at %s", path)
	service, method, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if isRPC := ok && strings.Contains(service, ".") &&
		!strings.Contains(method, "/"); isRPC || strings.HasPrefix(req.Header.Get("Content-Type"), "application/grpc") {
		// The path of an RPC: Connect clients read the code in the body.
		err = connect.Errorf(connect.CodeUnimplemented, "%s is not served", path)
	}
	WriteError(w, req, err, http.StatusNotFound)
}

func withTimeout(req *http.Request) (context.Context, context.CancelFunc, error) {
	text := req.Header.Get(headerTimeout)
	if text == "" {
		return req.Context(), func() {}, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || len(text) > 10 { // the bound of the Connect protocol
		return req.Context(), func() {}, connect.Errorf(connect.CodeInvalidArgument,
			"%s is %q: send milliseconds, at most ten digits", headerTimeout, excerpt.Text(text, excerpt.Name))
	}
	ctx, cancel := context.WithTimeout(req.Context(), time.Duration(ms)*time.Millisecond)
	return ctx, cancel, nil
}
