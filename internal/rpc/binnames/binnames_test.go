package binnames

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// chunked is a connection whose bytes come in pieces of the given sizes.
type chunked struct {
	net.Conn
	data  []byte
	sizes []int
	next  int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(c.data))
	if len(c.sizes) > 0 {
		n = min(n, c.sizes[c.next%len(c.sizes)])
		c.next++
	}
	copy(p, c.data[:n])
	c.data = c.data[n:]
	return n, nil
}

// through returns data as a server reads it, in reads of the given size.
func through(data []byte, sizes []int, read int) []byte {
	conn := NewConn(&chunked{data: slices.Clone(data), sizes: sizes})
	var out []byte
	buffer := make([]byte, read)
	for {
		n, err := conn.Read(buffer)
		out = append(out, buffer[:n]...)
		if err != nil {
			return out
		}
	}
}

// client writes frames as a client does.
type client struct {
	out    bytes.Buffer
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	stream uint32
}

func newClient() *client {
	c := &client{stream: 1}
	c.out.WriteString(http2.ClientPreface)
	c.framer = http2.NewFramer(&c.out, nil)
	c.hpack = hpack.NewEncoder(&c.block)
	return c
}

// plain appends a literal without Huffman code to the header block.
func (c *client) plain(kind byte, name, value string) {
	c.block.WriteByte(kind)
	for _, text := range []string{name, value} {
		c.block.Write(hpackInteger(0, 7, len(text)))
		c.block.WriteString(text)
	}
}

func hpackInteger(first byte, bits, n int) []byte {
	limit := 1<<bits - 1
	if n < limit {
		return []byte{first | byte(n)}
	}
	out := []byte{first | byte(limit)}
	for n -= limit; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// send writes the block as HEADERS and CONTINUATION frames of the given size at most.
func (c *client) send(size int, padding uint8, priority http2.PriorityParam) {
	block := slices.Clone(c.block.Bytes())
	c.block.Reset()
	first := block[:min(size, len(block))]
	block = block[len(first):]
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      c.stream,
		BlockFragment: first,
		EndHeaders:    len(block) == 0,
		PadLength:     padding,
		Priority:      priority,
	})
	for len(block) > 0 {
		part := block[:min(size, len(block))]
		block = block[len(part):]
		_ = c.framer.WriteContinuation(c.stream, len(block) == 0, part)
	}
	_ = c.framer.WriteData(c.stream, true, []byte("-bin"))
	c.stream += 2
}

// parse returns the headers of each block as a server has them.
func parse(t interface{ Fatalf(string, ...any) }, data []byte) (blocks [][]hpack.HeaderField) {
	framer := http2.NewFramer(io.Discard, bytes.NewReader(data[len(http2.ClientPreface):]))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err == io.EOF { //nolint:errorlint // as it comes
			return blocks
		}
		if err != nil {
			t.Fatalf("the frames cannot be read: %v", err)
			return nil
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			blocks = append(blocks, slices.Clone(frame.Fields))
		case *http2.DataFrame:
			if string(frame.Data()) != "-bin" {
				t.Fatalf("the data became %q", frame.Data())
			}
		}
	}
}

// renamed is what a server must have of a name.
func renamed(name string) string {
	if before, ok := strings.CutSuffix(name, suffix); ok {
		return before + Suffix
	}
	return name
}

func TestConn_RenamesBinaryHeadersAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClient()
		names := rapid.OneOf(
			rapid.SampledFrom(
				[]string{
					"x-custom-bin", "-bin", "a-bin", "x-bin-x", "xbin", "some-thing-bin", "x-bi", "user-agent",
					strings.Repeat("long", 40) + "-bin", "x-%", "x-~-bin",
				},
			),
			rapid.StringMatching(`[a-z0-9!#$&'*+.^_|~-]{1,12}(-bin|bin|n)?`),
		)
		for range rapid.IntRange(1, 4).Draw(t, "blocks") {
			if rapid.Bool().Draw(t, "resize") { // the table: the next field begins with the new size
				c.hpack.SetMaxDynamicTableSize(rapid.SampledFrom([]uint32{0, 100, 4096}).Draw(t, "table"))
				_ = c.hpack.WriteField(hpack.HeaderField{Name: ":method", Value: "POST"})
			}
			for range rapid.IntRange(0, 6).Draw(t, "fields") {
				field := hpack.HeaderField{
					Name:      names.Draw(t, "name"),
					Value:     rapid.StringMatching(`[ -~]{0,200}`).Draw(t, "value"),
					Sensitive: rapid.Bool().Draw(t, "sensitive"),
				}
				switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); kind {
				case 0, 1:
					c.plain([]byte{0x00, 0x10}[kind], field.Name, field.Value)
				default:
					_ = c.hpack.WriteField(field) // into memory
				}
			}
			size := rapid.SampledFrom([]int{16 << 10, 300}).Draw(t, "frame")
			c.send(size, uint8(rapid.IntRange(0, 20).Draw(t, "padding")),
				http2.PriorityParam{Weight: uint8(rapid.IntRange(0, 1).Draw(t, "weight"))})
		}
		data := c.out.Bytes()
		before := parse(t, data)
		after := parse(
			t,
			through(data, rapid.SliceOf(rapid.IntRange(1, 40)).Draw(t, "chunks"),
				rapid.SampledFrom([]int{1, 2, 9, 24, 4096}).Draw(t, "read")),
		)
		whole := parse(t, through(data, nil, 64<<10))
		for i, block := range before {
			for j, field := range block {
				if got := whole[i][j]; got.Name != renamed(field.Name) || got.Value != field.Value {
					t.Fatalf("%v becomes %v, want the name %s", field, got, renamed(field.Name))
				}
				// A name in pieces of one byte for each read may retain its letter: nothing else may change.
				if got := after[i][j]; got.Name != renamed(field.Name) && got.Name != field.Name ||
					got.Value != field.Value {
					t.Fatalf("in pieces, %v becomes %v", field, got)
				}
			}
		}
	})
}

func TestConn_ANameInPiecesIsRenamed(t *testing.T) {
	c := newClient()
	_ = c.hpack.WriteField(hpack.HeaderField{Name: "x-custom-bin", Value: "!"})
	_ = c.hpack.WriteField(hpack.HeaderField{Name: "some-bin", Value: "!"})
	c.plain(0, "plain-bin", "!")
	_ = c.hpack.WriteField(hpack.HeaderField{Name: "x-custom-bin", Value: "!"}) // by reference
	c.send(16<<10, 3, http2.PriorityParam{Weight: 1})
	for size := 1; size < 60; size++ {
		for _, block := range parse(t, through(c.out.Bytes(), []int{size}, 4096)) {
			for _, field := range block {
				if !strings.HasSuffix(field.Name, Suffix) || field.Value != "!" {
					t.Errorf("in pieces of %d: %v", size, field)
				}
			}
		}
	}
}

// In every frame size a header block is the same, except for the letters that a frame's end
// cuts in two.
func TestConn_ANameInSeveralFramesNeverBreaksAnother(t *testing.T) {
	for size := 1; size < 40; size++ {
		c := newClient()
		for i := range 4 {
			_ = c.hpack.WriteField(hpack.HeaderField{Name: fmt.Sprintf("x-%d-bin", i), Value: strings.Repeat("v", i)})
		}
		c.send(size, 0, http2.PriorityParam{})
		for i, field := range parse(t, through(c.out.Bytes(), nil, 4096))[0] {
			if name := fmt.Sprintf("x-%d-bin", i); field.Name != name && field.Name != renamed(name) ||
				field.Value != strings.Repeat("v", i) {
				t.Errorf("in frames of %d: %v", size, field)
			}
		}
	}
}

func TestConn_AllocatesNothingForAnotherCall(t *testing.T) {
	c := newClient()
	for range 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: ":path", Value: "/a.B/C"})
		_ = c.hpack.WriteField(hpack.HeaderField{Name: "x-custom", Value: "value"})
		c.send(16<<10, 0, http2.PriorityParam{})
	}
	data, source := c.out.Bytes(), &chunked{}
	conn, buffer := NewConn(source), make([]byte, 4096)
	source.data = data
	_, _ = conn.Read(buffer)
	call := data[len(data)-40:]
	call = call[bytes.LastIndex(call, []byte{byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders)})-3:]
	if n := testing.AllocsPerRun(100, func() {
		source.data = call
		_, _ = conn.Read(buffer)
	}); n != 0 {
		t.Errorf("%v objects", n)
	}
}

func FuzzConn(f *testing.F) {
	c := newClient()
	_ = c.hpack.WriteField(hpack.HeaderField{Name: "x-custom-bin", Value: "!"})
	c.send(5, 2, http2.PriorityParam{Weight: 1})
	f.Add(c.out.Bytes(), byte(3))
	f.Fuzz(func(t *testing.T, data []byte, size byte) {
		for _, sizes := range [][]int{nil, {int(size) + 1}} {
			if got := through(data, sizes, 512); len(got) != len(data) {
				t.Fatalf("%d bytes become %d", len(data), len(got))
			}
		}
	})
}

func BenchmarkConn(b *testing.B) {
	c := newClient()
	for range 2 {
		for _, name := range []string{
			":method", ":path", ":scheme", ":authority", "content-type", "te", "grpc-timeout", "authorization",
			"x-tenant-id", "traceparent",
		} {
			_ = c.hpack.WriteField(hpack.HeaderField{Name: name, Value: strings.Repeat("v", 30)})
		}
		c.send(16<<10, 0, http2.PriorityParam{})
	}
	data, source := c.out.Bytes(), &chunked{}
	conn, buffer := NewConn(source), make([]byte, 32<<10)
	source.data = data[:len(http2.ClientPreface)]
	_, _ = conn.Read(buffer)
	calls := data[len(http2.ClientPreface):]
	b.ReportAllocs()
	for b.Loop() {
		source.data = calls
		_, _ = conn.Read(buffer)
	}
}
