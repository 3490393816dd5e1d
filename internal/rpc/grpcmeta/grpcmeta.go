// Package grpcmeta turns Connect's headers into gRPC metadata, or into the fields of
// HTTP/2, and back: the names are in lower case there, binary values are not encoded in
// metadata, and what belongs to a transport stays with it.
package grpcmeta

import (
	"encoding/base64"
	"net/textproto"
	"strings"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/binnames"
)

const (
	binarySuffix = "-bin"
	// pushback belongs to gRPC and is forwarded all the same: it is for the caller (gRFC A6).
	pushback          = "grpc-retry-pushback-ms"
	canonicalPushback = "Grpc-Retry-Pushback-Ms"
)

// names is how headers are called on the other side; "": they do not go there.
type names struct {
	usual map[string]string // fields of most calls, which are reused
	other func(name string) string
}

func newNames(usual []string, of func(name string) string) names {
	n := names{map[string]string{}, of}
	for _, name := range usual {
		n.usual[name] = of(name)
	}
	return n
}

// of returns the name, and whether it is of the usual ones.
func (n names) of(name string) (other string, usual bool) {
	if known, ok := n.usual[name]; ok {
		return known, true
	}
	return n.other(name), false
}

var usual = append(
	contextkit.Headers(), textproto.CanonicalMIMEHeaderKey(contextkit.HeaderPrincipal),
	textproto.CanonicalMIMEHeaderKey(contextkit.HeaderRights),
	textproto.CanonicalMIMEHeaderKey(contextkit.HeaderClient),
	"Authorization", "Content-Type", "User-Agent", "Accept", "Accept-Encoding", "Content-Length", "Te",
	"Content-Encoding", "Date", "Trailer", "Vary", "Grpc-Status", "Grpc-Message", "Grpc-Encoding",
	"Grpc-Accept-Encoding", "Grpc-Timeout",
	"Connect-Protocol-Version", "Connect-Timeout-Ms", "Connect-Accept-Encoding",
)

// sent are the names of headers, which are in canonical form, as they travel.
var sent = newNames(usual, func(canonical string) string {
	lower := strings.ToLower(canonical)
	if contextkit.IsTransport(canonical) && lower != pushback {
		return ""
	}
	return lower
})

// rendered maps the names of an answer's headers and trailers to the names that are sent:
// those of sent, and the node's pushback.
var rendered = newNames(usual, func(canonical string) string {
	if canonical == canonicalPushback {
		return pushback
	}
	name, _ := sent.of(canonical)
	return name
})

// received are the names of headers by their names on the wire.
var received = newNames(append(lower(usual), ":authority", ":status"), func(lower string) string {
	canonical := textproto.CanonicalMIMEHeaderKey(lower)
	if strings.HasPrefix(lower, ":") || contextkit.IsTransport(canonical) && lower != pushback {
		return ""
	}
	return canonical
})

// answered are those of an answer's headers. The contract's are not among them: they
// are what the caller has sent.
var answered = newNames(append(lower(usual), ":status"), func(lower string) string {
	if name, _ := received.of(lower); !contextkit.IsContract(name) {
		return name
	}
	return ""
})

func lower(names []string) []string {
	return strings.Split(strings.ToLower(strings.Join(names, " ")), " ")
}

// From renders an answer's headers as metadata, which shares their values; nil if there are
// none. Headers that cannot be sent are left out, since grpc-go would fail the call.
func From(header *connect.Header) metadata.MD {
	if header.Len() == 0 {
		return nil
	}
	md := make(metadata.MD, header.Len())
	for key, values := range header.All() {
		if key, _ = rendered.of(key); key == "" {
			continue
		}
		switch values = Sendable(key, values); {
		case len(values) == 0:
		case !isBinary(key):
			md[key] = values
		default:
			for _, value := range values {
				raw, _ := base64.RawStdEncoding.DecodeString(value) // it can be sent
				md[key] = append(md[key], string(raw))
			}
		}
	}
	return md
}

// Into sets headers to metadata, whose values they share. It encodes binary values in base64,
// unless package binnames has left them so.
func Into(header *connect.Header, md metadata.MD) {
	for key, values := range md {
		if before, ok := strings.CutSuffix(key, binnames.Suffix); ok {
			if name, _ := received.of(before + binarySuffix); name != "" {
				header.SetValues(name, values)
			}
			continue
		}
		binary := strings.HasSuffix(key, binarySuffix)
		switch key, _ = received.of(key); {
		case key == "":
		case !binary:
			header.SetValues(key, values)
		default:
			for _, value := range values {
				header.Add(key, connect.EncodeBinaryHeader([]byte(value)))
			}
		}
	}
}

// Add adds an answer's fields to headers, unchanged, except those of the contract.
func Add(header *connect.Header, fields []hpack.HeaderField) {
	for _, field := range fields {
		if name, _ := answered.of(field.Name); name != "" {
			header.Add(name, field.Value)
		}
	}
}
