package edge

import (
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/transcode"
)

// httpBody is the message type of a body that is not JSON (google/api/httpbody.proto).
const httpBody protoreflect.FullName = "google.api.HttpBody"

// Fields of httpBody.
const (
	bodyType protowire.Number = 1 // content_type
	bodyData protowire.Number = 2
)

// isHTTPBody reports whether a message is an HttpBody.
func isHTTPBody(message protoreflect.MessageDescriptor) bool {
	return message != nil && message.FullName() == httpBody
}

// rawWire returns the wire bytes of the request, or of its body field, for a body of any content
// type.
func (s *stream) rawWire(body []byte) []byte {
	contentType := s.request.Header.Get("Content-Type")
	size := 0
	if contentType != "" {
		size = protowire.SizeTag(bodyType) + protowire.SizeBytes(len(contentType))
	}
	if len(body) > 0 {
		size += protowire.SizeTag(bodyData) + protowire.SizeBytes(len(body))
	}
	wire := make([]byte, 0, size+2*tenantHeadroom)
	if number := s.binding.bodyStep.number; number != 0 {
		wire = protowire.AppendTag(wire, number, protowire.BytesType)
		wire = protowire.AppendVarint(wire, uint64(size))
	}
	if contentType != "" {
		wire = protowire.AppendString(protowire.AppendTag(wire, bodyType, protowire.BytesType), contentType)
	}
	if len(body) > 0 {
		wire = protowire.AppendBytes(protowire.AppendTag(wire, bodyData, protowire.BytesType), body)
	}
	return wire
}

// rawAnswer returns the content type and the data of an answer that is an HttpBody, or that has one
// in the binding's field. The data aliases wire.
func (b *binding) rawAnswer(wire []byte) (contentType string, data []byte, err error) {
	if b.answer != 0 {
		if wire, err = lastBytes(wire, b.answer); err != nil {
			return "", nil, err
		}
	}
	text, err := lastBytes(wire, bodyType)
	if err != nil {
		return "", nil, err
	}
	data, err = lastBytes(wire, bodyData)
	return string(text), data, err
}

// lastBytes returns the last value of a field of a message; nil: it is not set.
func lastBytes(wire []byte, number protowire.Number) (value []byte, err error) {
	for len(wire) > 0 {
		n, wireType, tag, size := transcode.ConsumeField(wire)
		if size < 0 {
			return nil, transcode.ErrWire
		}
		if n == number && wireType == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(wire[tag:])
		}
		wire = wire[tag+size:]
	}
	return value, nil
}

// setRawHeaders sets the headers of a body from a node: browsers must not guess its type or run it
// as a page of the origin, which all tenants share.
func setRawHeaders(header http.Header, contentType string) {
	if contentType == "" || !sendable(contentType) {
		contentType = "application/octet-stream"
	}
	header.Set("Content-Type", contentType)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "sandbox; default-src 'none'")
}

// sendable reports whether a text is a valid header value.
func sendable(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
