package grpcgo

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// observer records what of a call is on the connection.
type observer struct{ channel *Channel }

// TagRPC implements [stats.Handler].
func (observer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (o observer) HandleRPC(ctx context.Context, event stats.RPCStats) {
	s, ok := ctx.Value(streamKey{}).(*Stream)
	if !ok {
		return
	}
	switch event := event.(type) {
	case *stats.Begin: // of each attempt
		s.sent.Store(false)
		s.received.Store(false)
		s.unsent.Store(event.IsTransparentRetryAttempt)
		return
	case *stats.OutHeader:
		s.sent.Store(true)
		return
	case *stats.OutPayload:
		s.unsent.Store(false)
		return
	case *stats.InTrailer:
		s.received.Store(true)
	case *stats.InPayload:
		s.unsent.Store(false)
	case *stats.InHeader:
	default:
		return
	}
	o.channel.answered.Store(max(int64(time.Since(o.channel.began)), 1))
}

// TagConn implements [stats.Handler].
func (observer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (observer) HandleConn(context.Context, stats.ConnStats) {}

// Texts of grpc-go's errors that have no other mark.
const (
	textReset           = "stream terminated by RST_STREAM with error code: "
	textHTTPStatus      = "unexpected HTTP status code received from server: "
	textNoHTTPStatus    = "malformed header: missing HTTP status"
	textHeadersTooLarge = "header list size to send violates the maximum size"
	textAnswerHeaders   = "peer header list size exceeded limit"
	textMalformedStatus = "transport: malformed grpc-status:"
	textTruncated       = "unexpected EOF"
	textCompressedFlag  = "grpc: compressed flag set"
	textCompression     = "grpc: peer compressed the response"
)

// explain returns why a call ended with an error of grpc-go, nil if the peer has sent its status, or an answer that is
// not gRPC. ctx is the caller's.
func (s *Stream) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	verdict := status.Convert(err)
	text := verdict.Message()
	tooLarge := fmt.Sprintf("vs. %d)", s.channel.config.MaxMessageBytes)
	switch {
	case verdict.Code() == codes.ResourceExhausted && strings.HasSuffix(text, tooLarge), text == textAnswerHeaders:
		return &channels.BrokenError{Malformed: true, Cause: channels.ErrTooLarge}
	case text == textTruncated:
		return &channels.BrokenError{Malformed: true, Cause: io.ErrUnexpectedEOF}
	case s.received.Load() && !s.unanswered(err), isForeign(text), strings.HasPrefix(text, textMalformedStatus):
		return nil
	case s.channel.closed.Load():
		return &channels.BrokenError{Unreached: !s.sent.Load(), Cause: channels.ErrClosed}
	case strings.HasPrefix(text, textHeadersTooLarge):
		return channels.ErrHeadersTooLarge
	case strings.HasPrefix(text, textCompressedFlag), strings.HasPrefix(text, textCompression):
		return &channels.BrokenError{Malformed: true, Cause: channels.ErrCompressed}
	case verdict.Code() == codes.DeadlineExceeded:
		return context.DeadlineExceeded // the peer's has passed
	case errors.Is(err, io.EOF): // of an attempt that has ended before its request was sent
		return &channels.BrokenError{Cause: io.ErrUnexpectedEOF}
	case !s.sent.Load():
		if failure := s.channel.failure.Load(); failure != nil {
			err = *failure
		}
		return &channels.BrokenError{Unreached: true, Cause: err}
	}
	if name, reset := strings.CutPrefix(text, textReset); reset {
		return &channels.BrokenError{Reset: true, Code: resetCode(name), Cause: err}
	}
	return &channels.BrokenError{Malformed: verdict.Code() == codes.Internal, Cause: err}
}

// unanswered reports whether the answer and its status are unknown although the call has ended with the peer's
// trailers. If grpc-go sends a call again, and the peer ends that attempt before the request's message is sent, grpc-go
// drops the answer and reports [io.EOF] for any status.
func (s *Stream) unanswered(err error) bool {
	return errors.Is(err, io.EOF) && s.unsent.Load() && s.requested.Load()
}

// resetCode returns the code of RST_STREAM by its text, an unassigned one if the text has none.
func resetCode(text string) uint32 {
	for code := http2.ErrCodeNo; code <= http2.ErrCodeHTTP11Required; code++ {
		if code.String() == text {
			return uint32(code)
		}
	}
	return math.MaxUint32
}

// isForeign reports whether a text is that of an answer that is not gRPC.
func isForeign(text string) bool {
	return strings.HasPrefix(text, textHTTPStatus) || strings.HasPrefix(text, textNoHTTPStatus)
}

// conclude sets the answer's fields as the peer sent them: those of its status, or of an answer that is not gRPC.
func (s *Stream) conclude(err error) {
	var verdict *status.Status // nil: success
	if !errors.Is(err, io.EOF) {
		verdict = status.Convert(err)
	}
	if text := verdict.Message(); isForeign(text) && !s.received.Load() {
		number, _, _ := strings.Cut(strings.TrimPrefix(text, textHTTPStatus), " ")
		if _, err := strconv.Atoi(number); err != nil {
			number = ""
		}
		s.header = []hpack.HeaderField{{Name: ":status", Value: number}}
		return
	}
	var begin []hpack.HeaderField
	if len(s.Header()) == 0 { // the trailers are the headers too
		begin = []hpack.HeaderField{{Name: ":status", Value: "200"}}
	}
	s.trailer = fields(begin, s.grpc.Trailer())
	number := strconv.Itoa(int(verdict.Code()))
	if strings.HasPrefix(verdict.Message(), textMalformedStatus) && !s.received.Load() {
		number = "" // grpc-go has discarded it
	}
	s.trailer = append(s.trailer, hpack.HeaderField{Name: "grpc-status", Value: number})
	if verdict.Message() != "" {
		escaped := strings.ReplaceAll(verdict.Message(), "%", "%25")
		s.trailer = append(s.trailer, hpack.HeaderField{Name: "grpc-message", Value: escaped})
	}
}

// answerHeader returns the fields of the answer's header, as the peer sent them.
func (s *Stream) answerHeader() []hpack.HeaderField {
	md, err := s.grpc.Header()
	if err != nil || md == nil {
		return nil
	}
	return fields([]hpack.HeaderField{{Name: ":status", Value: "200"}}, md)
}

// binarySuffix is that of the names of binary headers, whose values metadata has decoded.
const binarySuffix = "-bin"

// fields appends metadata to fields.
func fields(to []hpack.HeaderField, md metadata.MD) []hpack.HeaderField {
	for name, values := range md {
		for _, value := range values {
			if strings.HasSuffix(name, binarySuffix) {
				value = connect.EncodeBinaryHeader([]byte(value))
			}
			to = append(to, hpack.HeaderField{Name: name, Value: value})
		}
	}
	return to
}

// requestMetadata returns fields as metadata.
func requestMetadata(list []hpack.HeaderField) metadata.MD {
	md := make(metadata.MD, len(list))
	for _, field := range list {
		value := field.Value
		if strings.HasSuffix(field.Name, binarySuffix) {
			raw, _ := base64.RawStdEncoding.DecodeString(value) // it is valid
			value = string(raw)
		}
		md[field.Name] = append(md[field.Name], value)
	}
	return md
}
