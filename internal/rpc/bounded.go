package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/internal/excerpt"
)

// Bounds of all of an error's details together, as protobuf and as JSON. With the bound of its
// message ([excerpt.Message]) an error takes at most 8 KiB of a response in every protocol, which
// clients with the smallest header limits accept.
const (
	detailBytes = 3 << 10
	detailJSON  = 4 << 10
	// smallDetails is the size up to which details are within any bound.
	smallDetails = detailJSON / 6
)

// Bounded truncates the message and the details of the [connect.Error] in err, so that no answer, log
// line or record repeats much of a request. It shortens texts and lists in details, and omits a detail
// that stays too large. It returns err unchanged if it is within the bounds, or if it is the answer of
// another node ([connect.Error.IsRemote]).
func Bounded(err error) error {
	known, ok := errors.AsType[*connect.Error](err)
	if !ok || known == nil || known.IsRemote() {
		return err
	}
	if bounded := boundedError(known); bounded != known {
		return bounded
	}
	return err
}

// boundedError is Bounded for an error of this process.
func boundedError(err *connect.Error) *connect.Error {
	message := excerpt.Text(err.Message(), excerpt.Message)
	size := 0
	for _, detail := range err.Details() {
		size += len(detail.Type) + len(detail.Value)
	}
	if message == err.Message() && size <= smallDetails {
		return err
	}
	bounded := connect.NewError(err.Code(), message).WithCause(err.Unwrap())
	left, leftJSON := detailBytes, detailJSON
	for _, detail := range err.Details() {
		cut, size, sizeJSON := boundedDetail(detail, left, leftJSON)
		if cut == nil {
			continue
		}
		left, leftJSON = left-size, leftJSON-sizeJSON
		bounded = bounded.WithDetail(cut)
	}
	return bounded
}

// boundedDetail returns the detail, cut so that it takes no more bytes than are left as
// protobuf and as JSON, and the bytes that it takes; nil if it cannot be cut so far.
func boundedDetail(detail *connect.ErrorDetail, left, leftJSON int) (_ *connect.ErrorDetail, size, sizeJSON int) {
	message, err := connectproto.UnmarshalErrorDetail(detail)
	if err != nil { // an unknown type, such as a foreign node's, cannot be cut: it stays whole or is left out
		size = len(detail.Type) + len(detail.Value)
		if sizeJSON = len(detail.Type) + base64.StdEncoding.EncodedLen(len(detail.Value)); size > left ||
			sizeJSON > leftJSON {
			return nil, 0, 0
		}
		return detail, size, sizeJSON
	}
	for text, items := excerpt.Name, 64; items > 0; text, items = text/2, items/2 {
		shorten(message.ProtoReflect(), text, items)
		size = proto.Size(message) + len(detail.Type)
		asJSON, err := protojson.Marshal(message)
		if sizeJSON = len(asJSON) + len(detail.Type); err != nil || size > left || sizeJSON > leftJSON {
			continue
		}
		cut, err := connectproto.NewErrorDetail(message)
		if err != nil {
			return nil, 0, 0
		}
		return cut, size, sizeJSON
	}
	return nil, 0, 0
}

// shorten cuts a message's texts to a number of encoded bytes and its lists and maps to a
// number of items, recursively.
func shorten(message protoreflect.Message, text, items int) {
	message.SetUnknown(nil)
	message.Range(func(f protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case f.IsList():
			list := value.List()
			list.Truncate(min(list.Len(), items))
			for i := range list.Len() {
				list.Set(i, shortened(f, list.Get(i), text, items))
			}
		case f.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, of protoreflect.Value) bool {
				if value.Map().Len() > items ||
					f.MapKey().Kind() == protoreflect.StringKind && len(key.String()) > text {
					value.Map().Clear(key)
				} else {
					value.Map().Set(key, shortened(f.MapValue(), of, text, items))
				}
				return true
			})
		default:
			message.Set(f, shortened(f, value, text, items))
		}
		return true
	})
}

// shortened returns a single value, cut to its bound.
func shortened(f protoreflect.FieldDescriptor, value protoreflect.Value, text, items int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(excerpt.Text(value.String(), text))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(value.Bytes()[:min(len(value.Bytes()), text)])
	case protoreflect.MessageKind, protoreflect.GroupKind:
		shorten(value.Message(), text, items)
	}
	return value
}

// quoted lists the headers that Connect's handlers quote in their errors.
var quoted = [...]string{
	"Content-Encoding", "Connect-Content-Encoding", "Connect-Timeout-Ms", "Grpc-Encoding", "Grpc-Timeout",
}

// boundQuoted cuts values of these headers that are too long to be valid, so that errors do
// not echo them.
func boundQuoted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range quoted {
			for i, value := range r.Header[name] {
				if len(value) > excerpt.Name {
					r.Header[name][i] = excerpt.Text(value, excerpt.Name)
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// boundErrors is the interceptor that makes every error of a call [Bounded].
func boundErrors(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if err := next(ctx, spec, stream); err != nil {
			return Bounded(err)
		}
		return nil
	}
}
