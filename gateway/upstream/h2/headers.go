package h2

import (
	"bytes"
	"errors"
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
	begun   map[string]beginning // by path: the common fields, encoded
	before  map[string]string    // the last value of a name
	entered int                  // how many fields have been entered
	timeout []byte
}

// beginning is what a block begins with as long as no more fields are entered.
type beginning struct {
	encoded []byte
	entered int
}

const (
	// maxNames and maxPaths bound what is remembered.
	maxNames, maxPaths = 64, 256
	// fieldOverhead is what a field counts beside its name and value, RFC 9113, section 6.5.2.
	fieldOverhead = 32
	// pathAt is where the path stands among the common fields.
	pathAt = 2
)

func (h *outbound) init(config *Config, authority string) {
	h.encoder = hpack.NewEncoder(&h.block)
	h.before, h.begun = map[string]string{}, map[string]beginning{}
	scheme := "http"
	if config.TLS != nil {
		scheme = "https"
	}
	h.common = [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme}, {Name: ":path"}, {Name: ":authority", Value: authority},
		{Name: "content-type", Value: "application/grpc+proto"}, {Name: "te", Value: "trailers"}, {Name: "user-agent", Value: config.UserAgent},
	}
}

// limit bounds the table, in bytes, as the peer wants it from the next block on.
func (h *outbound) limit(size uint32) {
	h.encoder.SetMaxDynamicTableSizeLimit(size)
	clear(h.begun) // the next block begins with a word about it, RFC 7541, section 4.2
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
	h.begin(path)
	if remaining > 0 {
		h.timeout = appendTimeout(h.timeout[:0], remaining)
		h.put(hpack.HeaderField{Name: "grpc-timeout", Value: string(h.timeout), Sensitive: true})
	}
	for _, field := range fields {
		before, known := h.before[field.Name]
		field.Sensitive = known && before != field.Value || !known && len(h.before) == maxNames // HPACK's word for what is not entered
		if known || !field.Sensitive {
			h.before[field.Name] = field.Value
		}
		h.put(field)
	}
}

// begin writes the common fields. When all of them are in the table they are the same bytes
// in each call, until another is entered.
func (h *outbound) begin(path string) {
	if known := h.begun[path]; known.encoded != nil && known.entered == h.entered {
		h.block.Write(known.encoded)
		return
	}
	h.common[pathAt].Value = path
	entered := h.entered
	for _, field := range h.common {
		h.put(field)
	}
	if entered == h.entered {
		if len(h.begun) == maxPaths {
			clear(h.begun)
		}
		h.begun[path] = beginning{bytes.Clone(h.block.Bytes()), entered}
	}
}

// put writes a field.
func (h *outbound) put(field hpack.HeaderField) {
	at := h.block.Len()
	if err := h.encoder.WriteField(field); err != nil {
		panic(err) // not reached: a buffer takes all
	}
	if !indexed(h.block.Bytes()[at:]) {
		h.entered++
	}
}

// indexed reports whether a field is written without the table having changed: as a whole by
// its index (RFC 7541, section 6.1), or never to be entered (section 6.2.3).
func indexed(field []byte) bool { return field[0]&0x80 != 0 || field[0]&0xf0 == 0x10 }

// maxTimeout is how long a rendered timeout can be.
const maxTimeout = 9

// appendTimeout renders a duration as gRPC does: at most eight digits and a unit, rounded up,
// but for hours, which are rounded down. Source: grpc/doc/PROTOCOL-HTTP2.md, "Timeout".
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

// inbound decodes header blocks.
type inbound struct {
	decoder *hpack.Decoder
	list    []hpack.HeaderField
	size    int // of the list; beyond the bound nothing more is kept
	read    int // bytes of the block
	stream  uint32
	last    bool // the block ends the stream
}

func (f *inbound) init() {
	f.decoder = hpack.NewDecoder(firstTable, func(field hpack.HeaderField) {
		if f.size += len(field.Name) + len(field.Value) + fieldOverhead; f.size <= maxHeaderBytes {
			f.list = append(f.list, field)
		}
	})
	f.decoder.SetMaxStringLength(maxHeaderBytes)
}

// begin starts a stream's block.
func (f *inbound) begin(stream uint32, last bool) {
	clear(f.list)
	f.list, f.size, f.read, f.stream, f.last = f.list[:0], 0, 0, stream, last
}

// add decodes a part of the block.
func (f *inbound) add(part []byte, end bool) error {
	if f.read += len(part); f.read > maxHeaderBytes {
		return errors.New("the peer's headers do not end")
	}
	if _, err := f.decoder.Write(part); err != nil {
		return err
	}
	if end {
		return f.decoder.Close()
	}
	return nil
}
