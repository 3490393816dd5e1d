package tracing

import (
	"net"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/headgate/headgate/contextkit"
)

// Spans here follow OpenTelemetry's semantic conventions, version 1.37: those of RPC
// (Connect and gRPC), HTTP and messaging
// (https://opentelemetry.io/docs/specs/semconv/).

// Call describes a call, as its server or its client sees it.
type Call struct {
	// Procedure is "/package.Service/Method".
	Procedure string
	// Protocol is Connect's name of the protocol: grpc and grpcweb are gRPC, and all others
	// Connect, calls within the process too.
	Protocol string
	// Code is how it ended, 0 for OK.
	Code connect.Code
	// Server and Client are the addresses of its ends, host:port; "" if not known.
	Server, Client string
	// Started is when it began, and Took how long it took.
	Started time.Time
	Took    time.Duration
}

// ServerSpan returns the SERVER span of a call, whose id is the context's SpanID. Its status
// is an error only if the server is at fault.
func ServerSpan(c Call) Span {
	span := c.span(trace.SpanKindServer)
	if serverFault(c.Code) {
		span.ErrorType = c.Code.String()
	}
	return span
}

// ClientSpan returns the CLIENT span of an upstream call. id is the parent id that the server
// received. Every code but OK is an error.
func ClientSpan(c Call, id contextkit.SpanID) Span {
	span := c.span(trace.SpanKindClient)
	span.ID = id
	if c.Code != 0 {
		span.ErrorType = c.Code.String()
	}
	return span
}

func (c Call) span(kind trace.SpanKind) Span {
	service, method, _ := strings.Cut(strings.TrimPrefix(c.Procedure, "/"), "/")
	attributes := append(make([]attribute.KeyValue, 0, 12), semconv.RPCService(service), semconv.RPCMethod(method))
	switch {
	case c.Protocol == connect.ProtocolNameGRPC || c.Protocol == connect.ProtocolNameGRPCWeb:
		attributes = append(attributes, semconv.RPCSystemGRPC, semconv.RPCGRPCStatusCodeKey.Int(int(c.Code)))
	case c.Code != 0:
		attributes = append(attributes, semconv.RPCSystemConnectRPC,
			semconv.RPCConnectRPCErrorCodeKey.String(connectCode(c.Code)))
	default:
		attributes = append(attributes, semconv.RPCSystemConnectRPC)
	}
	return Span{
		Name:       service + "/" + method,
		Kind:       kind,
		Started:    c.Started,
		Took:       c.Took,
		Attributes: c.ends(attributes),
	}
}

// connectCode returns the name of a code in the conventions, which spell "cancelled" with two
// l.
func connectCode(code connect.Code) string {
	if code == connect.CodeCanceled {
		return "cancelled"
	}
	return code.String()
}

// ends adds the addresses of the call's ends.
func (c Call) ends(attributes []attribute.KeyValue) []attribute.KeyValue {
	return appendAddress(appendAddress(attributes, c.Server, semconv.ServerAddressKey, semconv.ServerPortKey), c.Client,
		semconv.ClientAddressKey, semconv.ClientPortKey)
}

func appendAddress(attributes []attribute.KeyValue, address string, host, port attribute.Key) []attribute.KeyValue {
	name, text, err := net.SplitHostPort(address)
	if err != nil || name == "" {
		return attributes
	}
	attributes = append(attributes, host.String(name))
	if number, err := strconv.ParseUint(text, 10, 16); err == nil && number > 0 {
		attributes = append(attributes, port.Int(int(number)))
	}
	return attributes
}

// serverFault reports whether a code is the server's fault.
func serverFault(code connect.Code) bool {
	switch code {
	case connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeUnimplemented, connect.CodeInternal,
		connect.CodeUnavailable, connect.CodeDataLoss:
		return true
	}
	return false
}

// Request is the HTTP request of a call over REST.
type Request struct {
	// Method is the HTTP method, and Route the path's template.
	Method, Route string
	// Path and Scheme are parts of its URL, and UserAgent is its header.
	Path, Scheme, UserAgent string
	// Begun reports whether the response's headers were sent before the call ended.
	Begun bool
}

// RESTSpan returns the SERVER span of a call that was made by a plain HTTP request.
func RESTSpan(c Call, r Request) Span {
	status := httpStatus(c.Code)
	if r.Begun {
		status = 200
	}
	span := Span{
		Name:    r.Method + " " + r.Route,
		Kind:    trace.SpanKindServer,
		Started: c.Started,
		Took:    c.Took,
		Attributes: c.ends([]attribute.KeyValue{
			semconv.HTTPRequestMethodKey.String(r.Method), semconv.HTTPRoute(r.Route), semconv.URLPath(r.Path),
			semconv.URLScheme(r.Scheme),
			semconv.UserAgentOriginal(r.UserAgent), semconv.HTTPResponseStatusCode(status),
		}),
	}
	switch {
	case status >= 500:
		span.ErrorType = strconv.Itoa(status)
	case r.Begun && serverFault(c.Code):
		span.ErrorType = c.Code.String()
	}
	return span
}

// httpStatus returns the status of a call over HTTP that ends with the code, 0 for OK, as
// the Connect protocol maps codes
// (https://connectrpc.com/docs/protocol#error-codes).
func httpStatus(code connect.Code) int {
	switch code {
	case 0:
		return 200
	case connect.CodeCanceled:
		return 499
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return 400
	case connect.CodeDeadlineExceeded:
		return 504
	case connect.CodeNotFound:
		return 404
	case connect.CodeAlreadyExists, connect.CodeAborted:
		return 409
	case connect.CodePermissionDenied:
		return 403
	case connect.CodeResourceExhausted:
		return 429
	case connect.CodeUnimplemented:
		return 501
	case connect.CodeUnavailable:
		return 503
	case connect.CodeUnauthenticated:
		return 401
	}
	return 500
}

// Message describes a NATS message, as its producer or a consumer sees it.
type Message struct {
	// Destination is its subject, and Template the subject with the names of its variable
	// parts, such as "events.{tenant}".
	Destination, Template string
	// ID is the message's.
	ID string
	// Server is the NATS server's address, host:port; "" when it is not known.
	Server string
	// Consumer names the group of consumers that shares the messages; "" for a producer.
	Consumer string
	// Started is when the operation began, and Took how long it took.
	Started time.Time
	Took    time.Duration
}

// PublishSpan returns the PRODUCER span of a message. id is the parent id in the message.
func PublishSpan(m Message, id contextkit.SpanID) Span {
	span := m.span("publish", trace.SpanKindProducer, semconv.MessagingOperationTypeSend)
	span.ID = id
	return span
}

// ProcessSpan returns the CONSUMER span of a message, whose id is the SpanID of the message's
// context.
func ProcessSpan(m Message) Span {
	return m.span("process", trace.SpanKindConsumer, semconv.MessagingOperationTypeProcess)
}

func (m Message) span(operation string, kind trace.SpanKind, operationType attribute.KeyValue) Span {
	return Span{
		Name:    operation + " " + m.Template,
		Kind:    kind,
		Started: m.Started,
		Took:    m.Took,
		Attributes: appendAddress([]attribute.KeyValue{
			semconv.MessagingSystemKey.String("nats"), semconv.MessagingOperationName(operation), operationType,
			semconv.MessagingDestinationName(m.Destination), semconv.MessagingDestinationTemplate(m.Template),
			semconv.MessagingMessageID(m.ID), semconv.MessagingConsumerGroupName(m.Consumer),
		}, m.Server, semconv.ServerAddressKey, semconv.ServerPortKey),
	}
}
