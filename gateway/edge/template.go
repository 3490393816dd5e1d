package edge

import (
	"fmt"
	"net/url"
	"strings"
)

// template is the compiled path of a google.api.http rule. Grammar (google/api/http.proto):
//
//	Template = "/" Segments [ Verb ] ;
//	Segments = Segment { "/" Segment } ;
//	Segment  = "*" | "**" | LITERAL | Variable ;
//	Variable = "{" FieldPath [ "=" Segments ] "}" ;
//	Verb     = ":" LITERAL ;
type template struct {
	segments  []segment
	variables []variable
	verb      string // decoded
	rest      bool   // the last segment is **
}

type segment struct {
	kind    segmentKind
	literal string // decoded
}

type segmentKind uint8

const (
	literalSegment segmentKind = iota
	anySegment                 // *
	restSegment                // **, the last
)

// variable is a field whose value is in one or more segments of a path.
type variable struct {
	field      string // path of proto names
	start, end int    // segments, end exclusive; a final ** matches all remaining segments
	// several reports whether the variable may have more than one segment: an escaped slash in it
	// stays escaped.
	several bool
}

func parseTemplate(path string) (*template, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, fmt.Errorf("path %q does not start with /", path)
	}
	t := &template{}
	for rest != "" {
		var err error
		if name, ok := strings.CutPrefix(rest, "{"); ok {
			rest, err = t.addVariable(name)
		} else {
			end := strings.IndexAny(rest, "/:")
			if end < 0 {
				end = len(rest)
			}
			err = t.add(rest[:end])
			rest = rest[end:]
		}
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", path, err)
		}
		switch {
		case rest == "":
		case rest[0] == '/' && len(rest) > 1:
			rest = rest[1:]
		case rest[0] == ':' && len(rest) > 1 && !strings.ContainsAny(rest[1:], "/:"):
			if t.verb, err = url.PathUnescape(rest[1:]); err != nil {
				return nil, fmt.Errorf("path %q: %w", path, err)
			}
			rest = ""
		default:
			return nil, fmt.Errorf("path %q: unexpected %q", path, rest)
		}
	}
	for i, s := range t.segments {
		if s.kind == restSegment && i < len(t.segments)-1 {
			return nil, fmt.Errorf("path %q: ** must be the last segment", path)
		}
	}
	t.rest = len(t.segments) > 0 && t.segments[len(t.segments)-1].kind == restSegment
	return t, nil
}

// addVariable adds the variable at the start of text, after its opening brace, and returns the text
// after it.
func (t *template) addVariable(text string) (after string, err error) {
	inner, after, closed := strings.Cut(text, "}")
	if !closed {
		return "", fmt.Errorf("a { is not closed")
	}
	field, pattern, given := strings.Cut(inner, "=")
	if !given {
		pattern = "*"
	}
	v := variable{field: field, start: len(t.segments)}
	for part := range strings.SplitSeq(pattern, "/") {
		if err := t.add(part); err != nil {
			return "", err
		}
	}
	v.end = len(t.segments)
	v.several = v.end-v.start > 1 || t.segments[v.start].kind == restSegment
	t.variables = append(t.variables, v)
	return after, nil
}

func (t *template) add(part string) error {
	switch part {
	case "":
		return fmt.Errorf("a segment is empty")
	case "*":
		t.segments = append(t.segments, segment{kind: anySegment})
	case "**":
		t.segments = append(t.segments, segment{kind: restSegment})
	default:
		literal, err := url.PathUnescape(part)
		if err != nil {
			return err
		}
		t.segments = append(t.segments, segment{kind: literalSegment, literal: literal})
	}
	return nil
}

// requestPath is the path of a request, split at unescaped slashes.
type requestPath struct {
	segments []pathSegment
	last     pathSegment // the last segment, without its verb
	verb     string      // decoded; "": there is none
}

// pathSegment is a segment, as written in the URL and percent-decoded.
type pathSegment struct{ raw, text string }

// usualSegments is the number of segments for which no allocation is needed.
const usualSegments = 12

// pathOf returns the path of a URL as the client wrote it. Its escapes are well-formed: net/http
// has checked them.
func pathOf(u *url.URL) string {
	if u.RawPath != "" { // not the canonical form of Path
		return u.RawPath
	}
	return u.EscapedPath()
}

// split splits an escaped path into segments, which it stores in room if they fit. It reports false
// for a path that no template matches: a relative one, or one with dot segments, which clients
// resolve (RFC 3986 §5.2.4).
func split(path string, room []pathSegment) (requestPath, bool) {
	path, ok := strings.CutPrefix(path, "/")
	if !ok {
		return requestPath{}, false
	}
	out := requestPath{segments: room[:0]}
	for raw := range strings.SplitSeq(path, "/") {
		if raw == "." || raw == ".." {
			return requestPath{}, false
		}
		out.segments = append(out.segments, pathSegment{raw, decode(raw)})
	}
	out.last = out.segments[len(out.segments)-1]
	if colon := strings.LastIndexByte(out.last.raw, ':'); colon >= 0 {
		out.verb = decode(out.last.raw[colon+1:])
		out.last = pathSegment{out.last.raw[:colon], decode(out.last.raw[:colon])}
	}
	return out, true
}

// decode percent-decodes a text with well-formed escapes.
func decode(text string) string {
	if strings.IndexByte(text, '%') < 0 {
		return text
	}
	plain, err := url.PathUnescape(text)
	if err != nil {
		return text // not reached: net/http rejects such a URL
	}
	return plain
}

// decodeButSlash percent-decodes a text, but leaves escaped slashes unchanged.
func decodeButSlash(text string) string {
	if strings.IndexByte(text, '%') < 0 {
		return text
	}
	var out strings.Builder
	for rest := text; ; {
		i := strings.IndexByte(rest, '%')
		for i >= 0 && !isEscapedSlash(rest[i:]) {
			next := strings.IndexByte(rest[i+1:], '%')
			if next < 0 {
				i = -1
				break
			}
			i += 1 + next
		}
		if i < 0 {
			out.WriteString(decode(rest))
			return out.String()
		}
		out.WriteString(decode(rest[:i]))
		out.WriteString(rest[i : i+3])
		rest = rest[i+3:]
	}
}

func isEscapedSlash(text string) bool {
	return len(text) >= 3 && text[1] == '2' && (text[2] == 'F' || text[2] == 'f')
}

// matches reports whether the path matches the template. Segments are compared decoded, after the
// path was split: an escaped slash never separates segments.
func (t *template) matches(path *requestPath) bool {
	n := len(path.segments)
	if t.verb != "" && t.verb != path.verb {
		return false
	}
	if n < len(t.segments) && (!t.rest || n < len(t.segments)-1) || (n > len(t.segments) && !t.rest) {
		return false
	}
	for i := range min(n, len(t.segments)) {
		text := path.segments[i].text
		if i == n-1 && t.verb != "" {
			text = path.last.text
		}
		switch s := &t.segments[i]; s.kind {
		case literalSegment:
			if text != s.literal {
				return false
			}
		case anySegment:
			if text == "" {
				return false
			}
		}
	}
	return true
}

// values returns the decoded texts of the template's variables in a matching path. A variable of
// one segment is decoded completely; in one that may have several, escaped slashes stay escaped
// (google/api/http.proto, "path template syntax").
func (t *template) values(path *requestPath) []string {
	if len(t.variables) == 0 {
		return nil
	}
	segments := path.segments
	values := make([]string, len(t.variables))
	for n, v := range t.variables {
		end := v.end
		if t.segments[end-1].kind == restSegment {
			end = len(segments)
		}
		if !v.several {
			values[n] = t.at(path, v.start).text
			continue
		}
		for i := v.start; i < end; i++ {
			if i > v.start {
				values[n] += "/"
			}
			values[n] += decodeButSlash(t.at(path, i).raw)
		}
	}
	return values
}

// at returns a segment of the path, without the template's verb.
func (t *template) at(path *requestPath, i int) pathSegment {
	if i == len(path.segments)-1 && t.verb != "" {
		return path.last
	}
	return path.segments[i]
}

// specificity orders templates: those with more literal segments are tried first.
func (t *template) specificity() int {
	score := 0
	for _, s := range t.segments {
		switch s.kind {
		case literalSegment:
			score += 100
		case anySegment:
			score += 10
		}
	}
	if t.verb != "" {
		score += 5
	}
	return score
}
