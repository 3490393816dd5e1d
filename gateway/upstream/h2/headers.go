package h2

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// outbound encodes header blocks. A field whose value differs from call to call would evict useful
// fields from HPACK's table, and cost time on both sides. So a field is added to the table only if
// the previous call had the same value, or if its name is new.
type outbound struct {
	encoder *hpack.Encoder
	block   bytes.Buffer
	common  [7]hpack.HeaderField // of every call: those of HTTP/2 and gRPC
	begun   map[string]beginning // by path: the common fields, encoded
	before  map[string]string    // the last value of a name
	added   int                  // number of fields added to the table
	timeout []byte
}

// beginning is the encoded beginning of a block, valid until another field is added to the table.
type beginning struct {
	encoded []byte
	entered int
}

const (
	// maxNames and maxPaths bound the stored names and paths.
	maxNames, maxPaths = 64, 256
	// fieldOverhead is the size of a field in addition to its name and value (RFC 9113 §6.5.2).
	fieldOverhead = 32
	// pathAt is the index of the path in the common fields.
	pathAt = 2
)

func (h *outbound) init(config *channels.Config, authority string) {
	h.encoder = hpack.NewEncoder(&h.block)
	h.before, h.begun = map[string]string{}, map[string]beginning{}
	scheme := "http"
	if config.TLS != nil {
		scheme = "https"
	}
	h.common = [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme}, {Name: ":path"},
		{Name: ":authority", Value: authority},
		{Name: "content-type", Value: "application/grpc+proto"}, {Name: "te", Value: "trailers"},
		{Name: "user-agent", Value: config.UserAgent},
	}
}

// limit sets the table size that the peer permits from the next block on, in bytes.
func (h *outbound) limit(size uint32) {
	h.encoder.SetMaxDynamicTableSizeLimit(size)
	clear(h.begun) // the next block begins with a table size update (RFC 7541 §4.2)
}

// sizeOf returns the size of the fields as the peer counts it (RFC 9113 §6.5.2), including a
// deadline.
func (h *outbound) sizeOf(fields []hpack.HeaderField, path string) uint64 {
	size := len(path) + len("grpc-timeout") + maxTimeout + fieldOverhead
	for _, list := range [...][]hpack.HeaderField{h.common[:], fields} {
		for _, field := range list {
			size += len(field.Name) + len(field.Value) + fieldOverhead
		}
	}
	return uint64(size)
}

// encode encodes a call's header block. remaining is the time until its deadline; 0: none.
func (h *outbound) encode(fields []hpack.HeaderField, path string, remaining time.Duration) {
	h.block.Reset()
	h.begin(path)
	if remaining > 0 {
		h.timeout = appendTimeout(h.timeout[:0], remaining)
		h.put(hpack.HeaderField{Name: "grpc-timeout", Value: string(h.timeout), Sensitive: true})
	}
	for _, field := range fields {
		before, known := h.before[field.Name]
		field.Sensitive = known && before != field.Value ||
			!known && len(h.before) == maxNames // HPACK's form of a field that is not added
		if known || !field.Sensitive {
			h.before[field.Name] = field.Value
		}
		h.put(field)
	}
}

// begin writes the common fields. While all of them are in the table, they are the same bytes in
// each call.
func (h *outbound) begin(path string) {
	if known := h.begun[path]; known.encoded != nil && known.entered == h.added {
		h.block.Write(known.encoded)
		return
	}
	h.common[pathAt].Value = path
	entered := h.added
	for _, field := range h.common {
		h.put(field)
	}
	if entered == h.added {
		if len(h.begun) == maxPaths {
			clear(h.begun)
		}
		h.begun[path] = beginning{bytes.Clone(h.block.Bytes()), entered}
	}
}

// put encodes a field.
func (h *outbound) put(field hpack.HeaderField) {
	at := h.block.Len()
	if err := h.encoder.WriteField(field); err != nil {
		panic(err) // not reached: writing to a buffer does not fail
	}
	if !indexed(h.block.Bytes()[at:]) {
		h.added++
	}
}

// indexed reports whether a field was encoded without a change of the table: by its index (RFC 7541
// §6.1), or as never indexed (§6.2.3).
func indexed(field []byte) bool { return field[0]&0x80 != 0 || field[0]&0xf0 == 0x10 }

// maxTimeout bounds the length of a formatted timeout.
const maxTimeout = 9

// appendTimeout formats a duration as gRPC does: at most eight digits and a unit, rounded up,
// except for hours, which are rounded down. Source: grpc/doc/PROTOCOL-HTTP2.md, "Timeout".
func appendTimeout(to []byte, d time.Duration) []byte {
	const digits = 100_000_000
	for _, in := range [...]struct {
		unit time.Duration
		sign byte
	}{
		{time.Nanosecond, 'n'},
		{time.Microsecond, 'u'},
		{time.Millisecond, 'm'},
		{time.Second, 'S'},
		{time.Minute, 'M'},
	} {
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
	size    int // of the list; beyond the bound no fields are stored
	read    int // bytes of the block
	stream  uint32
	last    bool // the block ends the stream
}

func (f *inbound) init() {
	f.decoder = hpack.NewDecoder(firstTable, func(field hpack.HeaderField) {
		if f.size += len(field.Name) + len(field.Value) + fieldOverhead; f.size <= channels.MaxHeaderBytes {
			f.list = append(f.list, field)
		}
	})
	f.decoder.SetMaxStringLength(channels.MaxHeaderBytes)
}

// begin starts a stream's block.
func (f *inbound) begin(stream uint32, last bool) {
	clear(f.list)
	f.list, f.size, f.read, f.stream, f.last = f.list[:0], 0, 0, stream, last
}

// add decodes a part of the block.
func (f *inbound) add(part []byte, end bool) error {
	if f.read += len(part); f.read > channels.MaxHeaderBytes {
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
