package channels

import (
	"crypto/tls"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/internal/fastpath"
)

// MaxHeaderBytes bounds the header fields of an answer, names and values.
const MaxHeaderBytes = 1 << 20

// Config configures the channels of a pool. All fields except TLS and FastPaths are required.
type Config struct {
	// TLS returns the configuration of the next connection; nil: clear text (h2c with prior
	// knowledge).
	TLS func() *tls.Config
	// StreamWindow and ConnWindow are the flow control windows of answers, in bytes, per stream and
	// per connection, at least 64 KiB.
	StreamWindow, ConnWindow int
	// MaxMessageBytes bounds a message of the peer.
	MaxMessageBytes int
	// ConnectTimeout bounds an attempt to connect, including the peer's SETTINGS.
	ConnectTimeout time.Duration
	// FirstBackoff is the approximate pause after a failed attempt to connect; each further failure
	// doubles it, up to MaxBackoff. Calls during the pause fail immediately.
	FirstBackoff, MaxBackoff time.Duration
	// PingAfter is the idle time after which a connection with calls in flight sends a PING, and
	// PingTimeout the time to wait for the answer.
	PingAfter, PingTimeout time.Duration
	// Memory is the pool of buffers for answers.
	Memory mem.BufferPool
	// FastPaths selects the sockets.
	FastPaths fastpath.Paths
	// UserAgent is the User-Agent header.
	UserAgent string
}

// ClientTLS returns the configuration of the next connection to an address (host:port): it negotiates HTTP/2, and
// verifies the host unless the configuration names another server. It returns nil for clear text.
func (c *Config) ClientTLS(address string) (*tls.Config, error) {
	if c.TLS == nil {
		return nil, nil //nolint:nilnil // nil is clear text
	}
	config := c.TLS().Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		config.ServerName = host
	}
	return config, nil
}

// Request is the beginning of a call.
type Request struct {
	// Path is the method, "/service/Method".
	Path string
	// Fields are the call's header fields, valid and in lower case; the fields that HTTP/2 and gRPC
	// require are added.
	Fields []hpack.HeaderField
	// Message is the first message if HasMessage is set, and the last one if Last is set. Its
	// memory must not change until the call has ended.
	Message          []byte
	HasMessage, Last bool
	// Whole reports whether at most one message is expected, which is only used after the call has
	// ended.
	Whole bool
	// Meter bounds the total memory of the answer's messages; nil: only MaxMessageBytes bounds
	// each.
	Meter Meter
}

// SpeaksGRPC reports whether an answer with these header fields is gRPC: by its gRPC status, or
// else by its HTTP status and content type. Source: grpc/doc/http-grpc-status-mapping.md.
func SpeaksGRPC(fields []hpack.HeaderField) bool {
	ok, grpc := false, false
	for i := range fields {
		switch f := &fields[i]; f.Name {
		case ":status":
			ok = f.Value == "200"
		case "content-type":
			rest, named := strings.CutPrefix(f.Value, "application/grpc")
			grpc = named && (rest == "" || rest[0] == '+' || rest[0] == ';')
		case "grpc-status":
			return true
		}
	}
	return ok && grpc
}
