package transcode

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/headgate/headgate/internal/excerpt"
)

// SyntaxError reports the position and the reason of JSON that cannot be parsed as the message.
type SyntaxError struct {
	// Line and Column count from 1, the column in bytes.
	Line, Column int
	// Field is the path of JSON names to the field with the invalid value, such as "rows[2].name";
	// "": the text as a whole.
	Field string
	// Message is the reason.
	Message string
}

// Error returns the position, the field and the reason.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("JSON line %d column %d: %s", e.Line, e.Column, e.Reason())
}

// Reason returns the field and the reason.
func (e *SyntaxError) Reason() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// scanner reads JSON.
type scanner struct {
	src     []byte
	pos     int
	scratch []byte // the last string with escapes
}

// fail returns an error for a position of the text.
func (s *scanner) fail(at int, format string, args ...any) error {
	for i, arg := range args {
		switch text := arg.(type) {
		case string:
			args[i] = excerpt.Text(text, excerpt.Name)
		case []byte:
			args[i] = excerpt.Text(string(text), excerpt.Name)
		}
	}
	at = min(at, len(s.src))
	before := s.src[:at]
	return &SyntaxError{
		Line:   bytes.Count(before, []byte{'\n'}) + 1,
		Column: at - bytes.LastIndexByte(before, '\n'),
		// The text is untrusted: callers quote it.
		Message: fmt.Sprintf(format, args...),
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// take consumes the byte c.
func (s *scanner) take(c byte) error {
	if got := s.peek(); got != c || s.pos == len(s.src) {
		return s.unexpected(fmt.Sprintf("%q", string(c)))
	}
	s.pos++
	return nil
}

func (s *scanner) unexpected(wanted string) error {
	if s.peek(); s.pos >= len(s.src) {
		return s.fail(s.pos, "unexpected end of the text, expected %s", wanted)
	}
	r, _ := utf8.DecodeRune(s.src[s.pos:])
	return s.fail(s.pos, "unexpected %q, expected %s", r, wanted)
}

// end checks that only white space follows.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.src) {
		return s.unexpected("the end of the text")
	}
	return nil
}

// next advances to the next element of an object or array that closer ends; first reports whether
// none has been read yet. It returns false at the end.
func (s *scanner) next(first bool, closer byte) (bool, error) {
	c := s.peek()
	switch {
	case c == closer:
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.pos++
		if s.peek() == closer {
			return false, s.unexpected("another element")
		}
		return true, nil
	}
	return false, s.unexpected(fmt.Sprintf(`"," or %q`, string(closer)))
}

// literal consumes a word such as null, if it is next.
func (s *scanner) literal(word string) bool {
	s.peek()
	end := s.pos + len(word)
	if end > len(s.src) || string(s.src[s.pos:end]) != word || (end < len(s.src) && inWord(s.src[end])) {
		return false
	}
	s.pos = end
	return true
}

func inWord(c byte) bool {
	return c == '-' || c == '+' || c == '.' || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
		(c >= 'A' && c <= 'Z')
}

// number consumes a number (RFC 8259 §6) and returns its text.
func (s *scanner) number() ([]byte, error) {
	s.peek()
	n := numberLength(s.src[s.pos:])
	if n == 0 || (s.pos+n < len(s.src) && inWord(s.src[s.pos+n])) {
		return nil, s.unexpected("a number")
	}
	text := s.src[s.pos : s.pos+n]
	s.pos += n
	return text, nil
}

// numberLength returns the length of the number that b starts with, 0 for none.
func numberLength(b []byte) int {
	i := 0
	digits := func() bool {
		start := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

// text consumes a string and returns its value: a part of the source, or the
// scratch buffer when it had escapes, good until the next string.
func (s *scanner) text() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.unexpected("a string")
	}
	start := s.pos + 1
	ascii := true
	for i := start; i < len(s.src); i++ {
		switch c := s.src[i]; {
		case c == '"':
			s.pos = i + 1
			if !ascii && !utf8.Valid(s.src[start:i]) {
				return nil, s.fail(start, "the string is not valid UTF-8")
			}
			return s.src[start:i:i], nil
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			return nil, s.fail(i, "control character %q in a string must be escaped", rune(c))
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, s.fail(len(s.src), "the text ends inside a string")
}

// escaped is text for strings with escapes, the first of them at i.
func (s *scanner) escaped(start, i int) ([]byte, error) {
	s.scratch = append(s.scratch[:0], s.src[start:i]...)
	out := s.scratch
	for i < len(s.src) {
		c := s.src[i]
		switch {
		case c == '"':
			s.pos, s.scratch = i+1, out
			if !utf8.Valid(out) {
				return nil, s.fail(start, "the string is not valid UTF-8")
			}
			return out, nil
		case c < ' ':
			return nil, s.fail(i, "control character %q in a string must be escaped", rune(c))
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		if i+1 >= len(s.src) {
			break
		}
		switch e := s.src[i+1]; e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(s.src[min(i+2, len(s.src)):])
			if !ok {
				return nil, s.fail(i, "expected four hexadecimal digits after \\u")
			}
			i += 6
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if i+1 < len(s.src) && s.src[i] == '\\' && s.src[i+1] == 'u' {
					low, ok = hex4(s.src[i+2:])
				}
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return nil, s.fail(i-6, "unpaired surrogate")
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
			continue
		default:
			return nil, s.fail(i, "unknown escape sequence: a backslash and %q", rune(e))
		}
		i += 2
	}
	return nil, s.fail(len(s.src), "the text ends inside a string")
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(v), err == nil && b[0] != '+' && b[0] != '-'
}

// skip consumes a value of any kind and returns its text.
func (s *scanner) skip(depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, s.fail(s.pos, "%v", ErrDepth)
	}
	c := s.peek()
	start := s.pos
	var err error
	switch {
	case c == '{' || c == '[':
		s.pos++
		for first := true; ; first = false {
			more, err := s.next(first, c+2) // '}' and ']' are two code points after '{' and '['
			if err != nil {
				return nil, err
			}
			if !more {
				return s.src[start:s.pos], nil
			}
			if c == '{' {
				if _, err := s.text(); err != nil {
					return nil, err
				}
				if err := s.take(':'); err != nil {
					return nil, err
				}
			}
			if _, err := s.skip(depth + 1); err != nil {
				return nil, err
			}
		}
	case c == '"':
		_, err = s.text()
	case s.literal("null"), s.literal("true"), s.literal("false"):
	default:
		_, err = s.number()
	}
	return s.src[start:s.pos], err
}
