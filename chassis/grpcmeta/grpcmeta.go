// Package grpcmeta turns Connect's headers into gRPC metadata and back: the names
// are in lower case there, binary values are not encoded, and what belongs to a
// transport stays with it.
package grpcmeta

import (
	"fmt"
	"net/textproto"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"
)

// reserved are headers that a transport itself writes.
var reserved = map[string]bool{
	"content-type": true, "te": true, "user-agent": true, "host": true, "connection": true, "content-length": true,
	"content-encoding": true, "accept-encoding": true, "accept": true, "transfer-encoding": true, "trailer": true, "date": true,
	"keep-alive": true, "upgrade": true, "proxy-connection": true, ":authority": true,
}

// Reserved returns the names of the headers, in canonical form, that a transport itself
// writes: [From] leaves them out.
func Reserved() []string {
	var names []string
	for name := range reserved {
		names = append(names, textproto.CanonicalMIMEHeaderKey(name))
	}
	return names
}

const (
	binarySuffix = "-bin"
	// pushback is gRPC's own and yet meant for whoever calls (gRFC A6).
	pushback = "grpc-retry-pushback-ms"
)

// lower and canonical have names that most calls bear, so that they need not be
// made anew.
var lower, canonical = func() (lower, canonical map[string]string) {
	lower, canonical = map[string]string{}, map[string]string{}
	for _, name := range append(contextkit.Headers(), textproto.CanonicalMIMEHeaderKey(contextkit.HeaderPrincipal),
		"Authorization", "Content-Type", "User-Agent", "Accept", "Accept-Encoding", "Content-Length", "Te") {
		lower[name] = strings.ToLower(name)
		canonical[lower[name]] = name
	}
	return lower, canonical
}()

func lowered(name string) string {
	if known, ok := lower[name]; ok {
		return known
	}
	return strings.ToLower(name)
}

func canonized(name string) string {
	if known, ok := canonical[name]; ok {
		return known
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// Travels reports whether a header, in canonical form, goes on to the next hop: those of
// a transport's own do not, see [From].
func Travels(canonical string) bool { return travels(lowered(canonical)) }

func travels(lower string) bool {
	return !reserved[lower] && !strings.HasPrefix(lower, "grpc-") && !strings.HasPrefix(lower, "connect-")
}

// From renders headers as metadata, which shares their values; nil if there are none.
func From(header *connect.Header) metadata.MD {
	if header.Len() == 0 {
		return nil
	}
	md := make(metadata.MD, header.Len())
	for key, values := range header.All() {
		key = lowered(key)
		if !travels(key) {
			continue
		}
		if !strings.HasSuffix(key, binarySuffix) {
			md[key] = values
			continue
		}
		for _, value := range values {
			if raw, err := connect.DecodeBinaryHeader(value); err == nil {
				md[key] = append(md[key], string(raw))
			}
		}
	}
	return md
}

// Into sets headers to metadata, which they share the values of.
func Into(header *connect.Header, md metadata.MD) {
	for key, values := range md {
		if reserved[key] || strings.HasPrefix(key, "grpc-") && key != pushback {
			continue
		}
		if !strings.HasSuffix(key, binarySuffix) {
			header.SetValues(canonized(key), values)
			continue
		}
		for _, value := range values {
			header.Add(key, connect.EncodeBinaryHeader([]byte(value)))
		}
	}
}

// sent has how those names travel that most calls bear; "": they do not.
var sent = func() map[string]string {
	names := map[string]string{}
	for name, low := range lower {
		names[name] = ""
		if travels(low) {
			names[name] = low
		}
	}
	return names
}()

// Append adds headers to fields, as they travel: names in lower case, binary values
// encoded. A value that HTTP/2 and gRPC do not let through is an error that names it.
func Append(fields []hpack.HeaderField, header *connect.Header) ([]hpack.HeaderField, error) {
	for key, values := range header.All() {
		name, known := sent[key]
		if !known {
			name = strings.ToLower(key)
			if !travels(name) {
				name = ""
			}
		}
		if name == "" {
			continue
		}
		for _, value := range values {
			if !visible(value) || !known && !httpguts.ValidHeaderFieldName(name) {
				return fields, fmt.Errorf("the header %q has a value that cannot be sent: visible ASCII alone can", name)
			}
			fields = append(fields, hpack.HeaderField{Name: name, Value: value})
		}
	}
	return fields, nil
}

// visible reports whether a value is of visible ASCII and spaces, as gRPC demands (see
// grpc/doc/PROTOCOL-HTTP2.md, "ASCII-Value").
func visible(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// Add adds fields to headers, as they came.
func Add(header *connect.Header, fields []hpack.HeaderField) {
	for _, field := range fields {
		if strings.HasPrefix(field.Name, ":") || strings.HasPrefix(field.Name, "grpc-") && field.Name != pushback || reserved[field.Name] {
			continue
		}
		header.Add(canonized(field.Name), field.Value)
	}
}
