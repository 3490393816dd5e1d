package h2

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"
)

// outbound encodes header blocks. Fields that differ from call to call would push out of
// HPACK's table what does not, and take time to enter on both sides; only those are
// entered that the call before had too, or whose name is new.
type outbound struct {
	encoder *hpack.Encoder
	block   bytes.Buffer
	common  [7]hpack.HeaderField // of every call: HTTP/2's own, and gRPC's
	before  map[string]string    // the last value of a name
	timeout []byte
}

const (
	// maxNames bounds the names whose values are remembered.
	maxNames = 64
	// fieldOverhead is what a field counts beside its name and value, RFC 9113, section 6.5.2.
	fieldOverhead = 32
	// pathAt is where the path stands among the common fields.
	pathAt = 2
)

func (h *outbound) init(config *Config, authority string) {
	h.encoder = hpack.NewEncoder(&h.block)
	h.before = map[string]string{}
	scheme := "http"
	if config.TLS != nil {
		scheme = "https"
	}
	h.common = [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme}, {Name: ":path"}, {Name: ":authority", Value: authority},
		{Name: "content-type", Value: "application/grpc+proto"}, {Name: "te", Value: "trailers"}, {Name: "user-agent", Value: config.UserAgent},
	}
}

// sizeOf returns how large the peer takes the fields to be, RFC 9113, section 6.5.2, a
// deadline included.
func (h *outbound) sizeOf(fields []hpack.HeaderField, path string) uint64 {
	size := len(path) + len("grpc-timeout") + maxTimeout + fieldOverhead
	for _, list := range [...][]hpack.HeaderField{h.common[:], fields} {
		for _, field := range list {
			size += len(field.Name) + len(field.Value) + fieldOverhead
		}
	}
	return uint64(size) //nolint:gosec // positive
}

// encode writes a call's block. remaining is the time that it has; 0: any.
func (h *outbound) encode(fields []hpack.HeaderField, path string, remaining time.Duration) {
	h.block.Reset()
	h.common[pathAt].Value = path
	for _, field := range h.common {
		h.put(field)
	}
	if remaining > 0 {
		h.timeout = appendTimeout(h.timeout[:0], remaining)
		h.put(hpack.HeaderField{Name: "grpc-timeout", Value: string(h.timeout), Sensitive: true})
	}
	for _, field := range fields {
		before, known := h.before[field.Name]
		switch {
		case known && before == field.Value:
		case known, len(h.before) == maxNames:
			field.Sensitive = true // HPACK's word for what is not entered
		}
		if known || !field.Sensitive {
			h.before[field.Name] = field.Value
		}
		h.put(field)
	}
}

func (h *outbound) put(field hpack.HeaderField) {
	if err := h.encoder.WriteField(field); err != nil {
		panic(err) // not reached: a buffer takes all
	}
}

// maxTimeout is how long a rendered timeout can be.
const maxTimeout = 9

// appendTimeout renders a duration as gRPC does, rounded up: at most eight digits and a
// unit. Source: grpc/doc/PROTOCOL-HTTP2.md, "Timeout".
func appendTimeout(to []byte, d time.Duration) []byte {
	const digits = 100_000_000
	for _, in := range [...]struct {
		unit time.Duration
		sign byte
	}{{time.Nanosecond, 'n'}, {time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}, {time.Minute, 'M'}} {
		if n := (int64(d) + int64(in.unit) - 1) / int64(in.unit); d <= math.MaxInt64-in.unit && n < digits {
			return append(strconv.AppendInt(to, n, 10), in.sign)
		}
	}
	return append(strconv.AppendInt(to, int64(d/time.Hour), 10), 'H')
}
