// Package binnames lets a grpc-go server receive binary metadata unchanged.
//
// grpc-go decodes the values of headers whose names end in "-bin" before any hook runs. It answers INTERNAL to a value
// that is not base64, although the client is at fault, and rejects values that are joined by commas, which the gRPC
// protocol allows. A connection of this package renames such headers in received frames, from "-bin" to [Suffix]:
// grpc-go treats them as text, and the server decodes and validates the values itself.
//
// A rename changes one letter of a header name that is sent as a literal (RFC 7541 §6.2). The new name has the same
// length, also in Huffman code, so that no byte moves. Later references to the name need no change, since the decoder
// indexes the renamed name. The package has no HPACK table and stores nothing about calls. ADR-0014 gives the reasons.
//
// Sources: RFC 9113 §4, §6.2, §6.10; RFC 7541 §5, §6; grpc/doc/PROTOCOL-HTTP2.md.
package binnames

import (
	"bytes"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Suffix replaces "-bin" at the end of the names of binary headers. gRPC does not allow such names, so that clients
// cannot send them.
const Suffix = "-bi%"

// suffix is the end of the names of binary headers before the rename.
const suffix = "-bin"

// The end of a name in Huffman code (RFC 7541 appendix B): "-" is 010110, "b" is 100011, "i"
// is 00110, "n" is 101010. "%" is 010101, each bit of "n" inverted.
const (
	huffmanSuffix     = 0b010110_100011_00110_101010
	huffmanSuffixBits = 23
	huffmanLetterBits = 6
)

// maxName bounds the Huffman code of an incomplete name that is buffered, in bytes: longer names are not renamed. A
// buffer of more than usualName bytes is not reused.
const maxName, usualName = 64 << 10, 256

// Conn is a server's HTTP/2 connection that renames the binary headers of its client. Read must not be called
// concurrently.
type Conn struct {
	net.Conn

	scanner scanner
	held    byte // the last byte read, if isHeld
	isHeld  bool
}

// NewConn returns a connection over c. Nothing may have been read from c, and only the returned connection may read
// from it.
func NewConn(c net.Conn) *Conn {
	return &Conn{Conn: c, scanner: scanner{skip: len(http2.ClientPreface)}}
}

// Read implements [io.Reader].
func (c *Conn) Read(p []byte) (int, error) {
	for {
		begin := 0
		if c.isHeld && len(p) > 0 {
			p[0], begin, c.isHeld = c.held, 1, false
			if len(p) == 1 {
				return 1, nil // the name is not renamed if its last letter begins in this byte
			}
		}
		n, err := c.Conn.Read(p[begin:])
		n += begin
		c.scanner.scan(p[:n], begin)
		if err == nil && n > 0 && c.scanner.endsNext() {
			// The letter may begin in this byte: it is held until the next byte has been read.
			n--
			c.held, c.isHeld = p[n], true
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

// step is the position in a header block.
type step uint8

const (
	atField     step = iota // at a field's first byte
	atIndex                 // in the further bytes of an index
	atName                  // at a name's length
	atNameSize              // in its further bytes
	inName                  // in the name
	atValue                 // at a value's length
	atValueSize             // in its further bytes
	inValue                 // in the value
)

// scanner follows frames and header blocks.
type scanner struct {
	skip   int  // number of following bytes that are not part of a header block
	broken bool // the input is not HTTP/2, which grpc-go reports

	// The frame.
	head     [9]byte
	headRead int
	prefixed int // number of bytes before the header block: length of the padding, and priority
	padded   bool
	fragment int // number of following bytes of the header block
	padding  int

	// The header block.
	step     step
	named    bool // a name follows the index
	valued   bool // a value follows the name
	size     int  // number of following bytes of the string
	shift    int  // position of the next bits of size
	huffman  bool
	name     []byte // in Huffman code
	nameHere int    // number of its bytes in this frame
	tail     uint32 // the last four bytes of a name in ASCII
}

// endsNext reports whether the next byte ends a name in Huffman code.
func (s *scanner) endsNext() bool {
	return !s.broken && s.fragment > 0 && s.step == inName && s.huffman && s.size == 1 && s.nameHere > 0
}

// scan reads b from begin on and renames in place.
func (s *scanner) scan(b []byte, begin int) {
	for i := begin; i < len(b) && !s.broken; {
		switch {
		case s.skip > 0:
			n := min(s.skip, len(b)-i)
			s.skip -= n
			i += n
		case s.fragment > 0 && s.prefixed == 0:
			end := i + min(s.fragment, len(b)-i)
			s.fragment -= end - i
			s.block(b, i, end)
			i = end
			if s.fragment == 0 {
				s.endFragment()
			}
		case s.prefixed > 0:
			s.prefix(b[i])
			i++
		default:
			s.head[s.headRead] = b[i]
			s.headRead++
			i++
			if s.headRead == len(s.head) {
				s.headRead = 0
				s.begin()
			}
		}
	}
}

// begin handles a frame's header.
func (s *scanner) begin() {
	length := int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
	flags := http2.Flags(s.head[4])
	s.nameHere = 0
	switch http2.FrameType(s.head[3]) {
	case http2.FrameHeaders:
		s.step = atField
		s.padded, s.padding, s.prefixed = flags.Has(http2.FlagHeadersPadded), 0, 0
		if s.padded {
			s.prefixed++
		}
		if flags.Has(http2.FlagHeadersPriority) {
			s.prefixed += 5
		}
		s.fragment = length - s.prefixed
	case http2.FrameContinuation:
		s.padding, s.fragment = 0, length
	default:
		s.skip = length
	}
	s.broken = s.fragment < 0
}

// prefix handles a byte of a HEADERS frame before its header block.
func (s *scanner) prefix(b byte) {
	if s.padded {
		s.padded, s.padding = false, int(b)
		s.fragment -= s.padding
		s.broken = s.fragment < 0
	}
	if s.prefixed--; s.prefixed == 0 && s.fragment == 0 {
		s.endFragment()
	}
}

// endFragment handles the end of a frame's part of a header block.
func (s *scanner) endFragment() { s.skip, s.padding = s.padding, 0 }

// block reads b[i:end], which is part of a header block.
func (s *scanner) block(b []byte, i, end int) {
	for i < end && !s.broken {
		switch s.step {
		case atField:
			s.field(b[i])
			i++
		case atIndex:
			if b[i] < 0x80 {
				s.afterIndex()
			}
			i++
		case atName, atValue:
			s.huffman, s.size, s.shift = b[i]&0x80 != 0, int(b[i]&0x7f), 0
			s.name, s.nameHere, s.tail = s.name[:0], 0, 0
			if s.step++; s.size < 0x7f {
				s.sized()
			}
			i++
		case atNameSize, atValueSize:
			s.size += int(b[i]&0x7f) << s.shift
			s.shift += 7
			s.broken = s.shift > 21 // longer than a header list may be
			if b[i] < 0x80 {
				s.sized()
			}
			i++
		case inName:
			s.letter(b, i)
			i++
		case inValue:
			n := min(s.size, end-i)
			i += n
			if s.size -= n; s.size == 0 {
				s.step = atField
			}
		}
	}
}

// field handles a field's first byte (RFC 7541 §6).
func (s *scanner) field(b byte) {
	var mask byte
	switch {
	case b&0x80 != 0: // indexed
		mask, s.valued = 0x7f, false
	case b&0x40 != 0: // a literal with incremental indexing
		mask, s.valued = 0x3f, true
	case b&0x20 != 0: // the table's size
		mask, s.valued = 0x1f, false
	default: // a literal
		mask, s.valued = 0x0f, true
	}
	s.named = s.valued && b&mask == 0
	if b&mask == mask {
		s.step = atIndex
		return
	}
	s.afterIndex()
}

// afterIndex sets the step that follows a field's index.
func (s *scanner) afterIndex() {
	switch {
	case s.named:
		s.step = atName
	case s.valued:
		s.step = atValue
	default:
		s.step = atField
	}
}

// sized sets the step that follows a string's length.
func (s *scanner) sized() {
	s.step++
	if s.size == 0 {
		s.afterString()
	}
}

// afterString sets the step that follows a string.
func (s *scanner) afterString() {
	if s.step == inName {
		s.step = atValue
	} else {
		s.step = atField
	}
}

// letter handles a byte of a name, and renames at the last one.
func (s *scanner) letter(b []byte, i int) {
	s.size--
	last := s.size == 0
	switch {
	case !s.huffman:
		s.tail = s.tail<<8 | uint32(b[i])
		if last && s.tail == '-'<<24|'b'<<16|'i'<<8|'n' {
			b[i] = Suffix[len(Suffix)-1]
		}
	case len(s.name) < maxName:
		s.name = append(s.name, b[i])
		if s.nameHere++; last {
			s.rename(b, i)
		}
	}
	if last {
		if cap(s.name) > usualName {
			s.name = nil
		}
		s.afterString()
	}
}

// rename changes the last letter of a Huffman-coded name that ends at b[i], if the name is a
// binary header's. The letter may begin in the byte before. If that byte is in another frame,
// which no known client does, or was read alone, the name is not changed.
func (s *scanner) rename(b []byte, i int) {
	padding, ok := s.isBinary()
	letter := uint16(1<<huffmanLetterBits-1) << padding
	if !ok || letter > 0xff && (s.nameHere < 2 || i == 0) {
		return
	}
	b[i] ^= byte(letter)
	if letter > 0xff {
		b[i-1] ^= byte(letter >> 8)
	}
}

// isBinary reports whether the Huffman-coded name ends in "-bin", and how many bits of padding
// follow.
func (s *scanner) isBinary() (padding int, ok bool) {
	var tail uint32
	for _, b := range s.name[max(0, len(s.name)-4):] {
		tail = tail<<8 | uint32(b)
	}
	for ; padding < 8; padding++ {
		ones := uint32(1)<<padding - 1
		if tail&ones == ones && tail>>padding&(1<<huffmanSuffixBits-1) == huffmanSuffix {
			// Other letters may end in the same bits: only decoding the whole name is certain.
			var name bytes.Buffer
			_, err := hpack.HuffmanDecode(&name, s.name)
			return padding, err == nil && bytes.HasSuffix(name.Bytes(), []byte(suffix))
		}
	}
	return 0, false
}
