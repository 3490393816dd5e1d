package contextkit

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/textproto"
)

// ErrInvalidTraceparent is returned for a traceparent that W3C Trace Context
// does not accept. The caller starts a new trace and never forwards the value.
var ErrInvalidTraceparent = errors.New("invalid traceparent")

// Lengths in a traceparent, in characters (W3C Trace Context §3.2.2).
const (
	versionLength     = 2
	traceIDLength     = 32
	parentIDLength    = 16
	flagsLength       = 2
	traceIDAt         = versionLength + 1
	parentIDAt        = traceIDAt + traceIDLength + 1
	flagsAt           = parentIDAt + parentIDLength + 1
	traceparentLength = flagsAt + flagsLength
)

// Flags of a traceparent (W3C Trace Context level 2 §3.2.2.5).
const (
	// FlagSampled reports that the caller may have recorded the trace.
	FlagSampled byte = 0x01
	// FlagRandom reports that the trace id's right-most 7 bytes are random.
	FlagRandom byte = 0x02
)

// TraceID is a W3C trace id. All zeros is invalid.
type TraceID [16]byte

// String returns the id in 32 lower-case hexadecimal digits, "" when invalid.
func (t TraceID) String() string {
	if t == (TraceID{}) {
		return ""
	}
	var b [traceIDLength]byte
	hex.Encode(b[:], t[:])
	return string(b[:])
}

// ParseTraceID returns the trace id of 32 lower-case hexadecimal digits.
func ParseTraceID(s string) (TraceID, bool) {
	var id TraceID
	if len(s) != traceIDLength || !decodeLowerHex(id[:], s) || id == (TraceID{}) {
		return TraceID{}, false
	}
	return id, true
}

// SpanID names a part of a trace. All zeros is none.
type SpanID [8]byte

// NewSpanID returns a random id.
func NewSpanID() (id SpanID) {
	binary.NativeEndian.PutUint64(id[:], max(rand.Uint64(), 1))
	return id
}

// Traceparent is the position of a call in a trace. The zero value is no
// position.
type Traceparent struct {
	TraceID  TraceID
	ParentID SpanID
	Flags    byte
}

// ParseTraceparent parses a traceparent header by W3C Trace Context §3.2.2 and
// §4.3: version ff, upper-case hex, all-zero ids and, in version 00, anything
// after the flags are invalid; of a later version the known part is used.
func ParseTraceparent(s string) (Traceparent, error) {
	if len(s) < traceparentLength {
		return Traceparent{}, ErrInvalidTraceparent
	}
	var (
		version [1]byte
		flags   [1]byte
		tp      Traceparent
	)
	if s[traceIDAt-1] != '-' || s[parentIDAt-1] != '-' || s[flagsAt-1] != '-' ||
		!decodeLowerHex(version[:], s[:versionLength]) ||
		!decodeLowerHex(tp.TraceID[:], s[traceIDAt:parentIDAt-1]) ||
		!decodeLowerHex(tp.ParentID[:], s[parentIDAt:flagsAt-1]) ||
		!decodeLowerHex(flags[:], s[flagsAt:traceparentLength]) {
		return Traceparent{}, ErrInvalidTraceparent
	}
	switch {
	case version[0] == 0xff,
		version[0] == 0 && len(s) != traceparentLength,
		len(s) > traceparentLength && s[traceparentLength] != '-',
		tp.TraceID == TraceID{},
		tp.ParentID == SpanID{}:
		return Traceparent{}, ErrInvalidTraceparent
	}
	// Only flags that this version defines may be passed on (§3.2.2.5.3).
	tp.Flags = flags[0] & (FlagSampled | FlagRandom)
	return tp, nil
}

// extractTrace parses the trace headers' values. Without exactly one valid traceparent both
// results are zero: a new trace starts (W3C Trace Context §4.2), and tracestate has no meaning
// without its traceparent.
func extractTrace(traceparent, tracestate []string) (Traceparent, string) {
	if len(traceparent) != 1 {
		return Traceparent{}, ""
	}
	tp, err := ParseTraceparent(textproto.TrimString(traceparent[0])) // HTTP/2 does not strip what HTTP/1 does
	if err != nil {
		return Traceparent{}, ""
	}
	return tp, CombineTracestate(tracestate)
}

// NewTraceparent starts a trace, sampled, with a random trace id.
func NewTraceparent() Traceparent {
	tp := Traceparent{ParentID: NewSpanID(), Flags: FlagSampled | FlagRandom}
	binary.NativeEndian.PutUint64(tp.TraceID[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(tp.TraceID[8:], max(rand.Uint64(), 1)) // not all zeros
	return tp
}

// IsZero reports whether t is no position.
func (t Traceparent) IsZero() bool { return t.TraceID == TraceID{} }

// String returns the header value, in version 00; "" for the zero value.
func (t Traceparent) String() string {
	if t.IsZero() {
		return ""
	}
	var room [traceparentLength]byte
	return string(t.append(room[:0]))
}

// append appends the header value.
func (t Traceparent) append(to []byte) []byte {
	var text [traceparentLength]byte
	copy(text[:], "00-")
	hex.Encode(text[traceIDAt:], t.TraceID[:])
	text[parentIDAt-1] = '-'
	hex.Encode(text[parentIDAt:], t.ParentID[:])
	text[flagsAt-1] = '-'
	hex.Encode(text[flagsAt:], []byte{t.Flags})
	return append(to, text[:]...)
}

// decodeLowerHex is hex.Decode without upper case, which W3C forbids.
func decodeLowerHex(dst []byte, s string) bool {
	for i := range dst {
		hi, ok1 := fromLowerHex(s[2*i])
		lo, ok2 := fromLowerHex(s[2*i+1])
		if !ok1 || !ok2 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func fromLowerHex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
