// Package grpcmeta turns Connect's headers into gRPC metadata and back: the names
// are in lower case there, binary values are not encoded, and what belongs to a
// transport stays with it.
package grpcmeta

import (
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"google.golang.org/grpc/metadata"
)

// reserved are headers that a transport itself writes.
var reserved = map[string]bool{
	"content-type": true, "te": true, "user-agent": true, "host": true, "connection": true, "content-length": true,
	"content-encoding": true, "accept-encoding": true, "accept": true, "transfer-encoding": true, "trailer": true, "date": true,
	"keep-alive": true, "upgrade": true, "proxy-connection": true, ":authority": true,
}

const (
	binarySuffix = "-bin"
	// pushback is gRPC's own and yet meant for whoever calls (gRFC A6).
	pushback = "grpc-retry-pushback-ms"
)

// lower has names that most calls bear, so that they need not be made anew.
var lower = func() map[string]string {
	out := map[string]string{}
	for _, name := range append(contextkit.Headers(), "Content-Type", "User-Agent", "Accept", "Accept-Encoding", "Content-Length", "Grpc-Timeout", "Grpc-Accept-Encoding", "Te") {
		out[name] = strings.ToLower(name)
	}
	return out
}()

func lowered(name string) string {
	if known, ok := lower[name]; ok {
		return known
	}
	return strings.ToLower(name)
}

// From renders headers as metadata.
func From(header *connect.Header) metadata.MD {
	md := make(metadata.MD, header.Len())
	for key, values := range header.All() {
		key = lowered(key)
		if reserved[key] || strings.HasPrefix(key, "grpc-") || strings.HasPrefix(key, "connect-") {
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

// Into adds metadata to headers.
func Into(header *connect.Header, md metadata.MD) {
	for key, values := range md {
		if reserved[key] || strings.HasPrefix(key, "grpc-") && key != pushback {
			continue
		}
		for _, value := range values {
			if strings.HasSuffix(key, binarySuffix) {
				value = connect.EncodeBinaryHeader([]byte(value))
			}
			header.Add(key, value)
		}
	}
}
