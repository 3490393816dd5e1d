package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/descriptors"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// Protocol errors of a node.
var (
	errNoAnswer    = connect.NewError(connect.CodeInternal, "the upstream ended the call without an answer")
	errManyAnswers = connect.NewError(connect.CodeInternal, "the upstream answered more than once")
)

// receiveOne waits for the end of a call with one answer, decodes the answer into msg and copies its
// headers. Errors are the node's verdict, or those of the stream.
func receiveOne(ctx context.Context, stream callStream, info *connect.CallInfo, msg any) error {
	buffer, err := stream.Receive(ctx)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	grpcmeta.Add(info.ResponseHeader(), stream.Header())
	grpcmeta.Add(info.ResponseTrailer(), stream.Trailer())
	if said := verdict(stream); said != nil {
		if err == nil {
			buffer.Free()
		}
		return said
	}
	if err != nil {
		return errNoAnswer
	}
	if more, err := stream.Receive(ctx); err == nil {
		more.Free()
		buffer.Free()
		return errManyAnswers
	}
	return decodeMessage(buffer, msg)
}

// decodeMessage decodes the node's message into msg.
func decodeMessage(buffer mem.Buffer, msg any) error {
	if err := frame.Take(buffer, msg); err != nil {
		return connect.NewError(connect.CodeInternal, "the upstream's answer cannot be read").WithCause(err)
	}
	return nil
}

// clockMargin is how much too early a peer's timer for a call's deadline may fire, upon which the
// peer resets the stream.
const clockMargin = 20 * time.Millisecond

// localError returns the error of a call in ctx that ended without the node's verdict; nil for a nil
// err. The underlying error, which contains addresses, is its cause.
func localError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, said := errors.AsType[*connect.Error](err); said {
		return err
	}
	if metered, ok := errors.AsType[*channels.MeterError](err); ok {
		return connect.NewError(connect.CodeResourceExhausted,
			"the node's answer exceeds the memory that the call may use").WithCause(metered)
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	switch {
	case errors.Is(err, channels.ErrTooLarge):
		return rpc.WithDetails(
			connect.NewError(connect.CodeResourceExhausted, "the upstream's answer is too large").WithCause(err),
			rpc.Reason(rpc.ReasonResponseTooLarge),
		)
	case errors.Is(err, channels.ErrHeadersTooLarge):
		return connect.NewError(connect.CodeResourceExhausted,
			"the call's headers are larger than the upstream accepts").WithCause(err)
	case errors.Is(err, channels.ErrCompressed):
		return connect.NewError(connect.CodeInternal, "the upstream's answer cannot be read").WithCause(err)
	}
	broken, _ := errors.AsType[*channels.BrokenError](err)
	switch {
	case broken == nil && errors.Is(err, context.DeadlineExceeded): // a moment before that of ctx
		return context.DeadlineExceeded
	case broken == nil:
	case broken.Unreached && descriptors.Exhausted(err):
		return connect.NewError(connect.CodeUnavailable,
			"too many open files: no connection to the upstream").WithCause(err)
	case broken.Unreached:
		return connect.NewError(connect.CodeUnavailable, "the upstream cannot be reached").WithCause(err)
	case broken.Reset && http2.ErrCode(broken.Code) == http2.ErrCodeCancel && nearDeadline(ctx):
		return context.DeadlineExceeded
	case broken.Reset && !broken.Refused:
		return connect.NewError(resetCode(http2.ErrCode(broken.Code)), "the node reset the call").WithCause(err)
	case broken.Malformed:
		return connect.NewError(connect.CodeInternal, "the node's answer violates the gRPC protocol").WithCause(err)
	}
	return connect.NewError(connect.CodeUnavailable,
		"the upstream closed the connection before its answer was complete").WithCause(err)
}

// nearDeadline reports whether the call's deadline may have passed on the node's clock.
func nearDeadline(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < contextkit.DeadlineMargin+clockMargin
}

// resetCode returns the code of a call whose stream was reset. Source: grpc/doc/PROTOCOL-HTTP2.md,
// "Errors", and grpc-go for what it leaves open.
func resetCode(code http2.ErrCode) connect.Code {
	switch code {
	case http2.ErrCodeRefusedStream:
		return connect.CodeUnavailable
	case http2.ErrCodeCancel:
		return connect.CodeCanceled
	case http2.ErrCodeFlowControl, http2.ErrCodeEnhanceYourCalm:
		return connect.CodeResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return connect.CodePermissionDenied
	case http2.ErrCodeNo, http2.ErrCodeProtocol, http2.ErrCodeInternal, http2.ErrCodeSettingsTimeout,
		http2.ErrCodeStreamClosed,
		http2.ErrCodeFrameSize, http2.ErrCodeCompression, http2.ErrCodeConnect, http2.ErrCodeHTTP11Required:
		return connect.CodeInternal
	}
	return connect.CodeUnknown
}

// verdict returns the error with which the node ended a call; nil: success. Source:
// grpc/doc/PROTOCOL-HTTP2.md, "Responses".
func verdict(stream callStream) error {
	header, trailer := stream.Header(), stream.Trailer()
	if len(header) == 0 {
		header = trailer
	}
	if !channels.SpeaksGRPC(header) {
		return foreign(header)
	}
	number := valueOf(trailer, "grpc-status")
	if number == "0" {
		return nil
	}
	code, err := strconv.ParseUint(number, 10, 32)
	switch {
	case err != nil:
		return connect.NewError(connect.CodeInternal, "the upstream ended the call without a status")
	case code == 0 || code > uint64(connect.CodeUnauthenticated):
		code = uint64(connect.CodeUnknown)
	}
	out := connect.NewError(connect.Code(code),
		unescape(valueOf(trailer, "grpc-message")))
	for _, detail := range details(trailer) {
		out = out.WithDetail(detail)
	}
	return out.WithRemote()
}

// details returns the details of a status.
func details(trailer []hpack.HeaderField) (found []*connect.ErrorDetail) {
	text := valueOf(trailer, "grpc-status-details-bin")
	if text == "" {
		return nil
	}
	var st spb.Status
	raw, err := connect.DecodeBinaryHeader(text)
	if err != nil || proto.Unmarshal(raw, &st) != nil {
		return nil // code and message are sufficient
	}
	for _, detail := range st.GetDetails() {
		name := detail.GetTypeUrl()
		found = append(found,
			&connect.ErrorDetail{Type: name[strings.LastIndexByte(name, '/')+1:], Value: detail.GetValue()})
	}
	return found
}

// foreign returns the error of an answer that is not gRPC, usually from an HTTP server that does
// not know the path, or from a proxy. Source: grpc/doc/http-grpc-status-mapping.md.
func foreign(header []hpack.HeaderField) error {
	status := valueOf(header, ":status")
	code := connect.CodeUnknown
	switch status {
	case "400":
		code = connect.CodeInternal
	case "401":
		code = connect.CodeUnauthenticated
	case "403":
		code = connect.CodePermissionDenied
	case "404":
		code = connect.CodeUnimplemented
	case "429", "502", "503", "504":
		code = connect.CodeUnavailable
	}
	number, _ := strconv.Atoi(status)
	return connect.Errorf(code, "the endpoint does not speak gRPC: HTTP status %d %s", number,
		http.StatusText(number)).WithCause(errForeign)
}

// errForeign is the cause of the error of an answer that is not gRPC.
var errForeign = errors.New("the answer is not gRPC's")

// Answered reports whether a call that failed with err received an answer of its peer, including a
// reset of its stream. It did not if the peer is unreachable, has disconnected, or exceeded the
// deadline.
func Answered(err error) bool {
	verdict, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return false
	}
	switch verdict.Code() {
	case connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return false
	case connect.CodeUnavailable:
		return verdict.IsRemote() || errors.Is(err, errForeign)
	}
	return true
}

// valueOf returns the first value of a header field, "" if there is none.
func valueOf(fields []hpack.HeaderField, name string) string {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return ""
}

// unescape decodes gRPC's percent-encoding; invalid escapes are unchanged.
func unescape(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if b, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return string(out)
}
