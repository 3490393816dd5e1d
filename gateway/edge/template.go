package edge

import (
	"fmt"
	"net/url"
	"strings"
)

// template is a path of a google.api.http rule, compiled. Grammar (google/api/
// http.proto):
//
//	Template = "/" Segments [ Verb ] ;
//	Segments = Segment { "/" Segment } ;
//	Segment  = "*" | "**" | LITERAL | Variable ;
//	Variable = "{" FieldPath [ "=" Segments ] "}" ;
//	Verb     = ":" LITERAL ;
type template struct {
	segments  []segment
	variables []variable
	verb      string
	// prefix is what every path that fits begins with after its first slash.
	prefix string
}

type segment struct {
	kind    segmentKind
	literal string
}

type segmentKind uint8

const (
	literalSegment segmentKind = iota
	anySegment                 // *
	restSegment                // **, the last
)

// variable is a field that some segments of a path fill.
type variable struct {
	field      string // path of proto names
	start, end int    // segments, end exclusive; a final ** takes all the rest
}

func parseTemplate(path string) (*template, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, fmt.Errorf("path %q does not start with /", path)
	}
	t := &template{}
	for rest != "" {
		if name, ok := strings.CutPrefix(rest, "{"); ok {
			inner, after, closed := strings.Cut(name, "}")
			if !closed {
				return nil, fmt.Errorf("path %q: a { is not closed", path)
			}
			field, pattern, given := strings.Cut(inner, "=")
			if !given {
				pattern = "*"
			}
			v := variable{field: field, start: len(t.segments)}
			for part := range strings.SplitSeq(pattern, "/") {
				if err := t.add(part); err != nil {
					return nil, fmt.Errorf("path %q: %w", path, err)
				}
			}
			v.end = len(t.segments)
			t.variables = append(t.variables, v)
			rest = after
		} else {
			end := strings.IndexAny(rest, "/:")
			if end < 0 {
				end = len(rest)
			}
			if err := t.add(rest[:end]); err != nil {
				return nil, fmt.Errorf("path %q: %w", path, err)
			}
			rest = rest[end:]
		}
		switch {
		case rest == "":
		case rest[0] == '/' && len(rest) > 1:
			rest = rest[1:]
		case rest[0] == ':' && len(rest) > 1 && !strings.Contains(rest[1:], "/"):
			t.verb, rest = rest[1:], ""
		default:
			return nil, fmt.Errorf("path %q: unexpected %q", path, rest)
		}
	}
	for i, s := range t.segments {
		if s.kind == restSegment && i < len(t.segments)-1 {
			return nil, fmt.Errorf("path %q: ** must be the last segment", path)
		}
	}
	t.prefix = t.literalPrefix()
	return t, nil
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
		t.segments = append(t.segments, segment{kind: literalSegment, literal: part})
	}
	return nil
}

// match returns the values of the template's variables, unescaped, if the
// escaped path fits. Each segment is unescaped after the path was split, so
// that an escaped slash never makes a segment; in ** it stays escaped.
func (t *template) match(escapedPath string) ([]string, bool) {
	path, ok := strings.CutPrefix(escapedPath, "/")
	if !ok {
		return nil, false
	}
	if t.verb != "" {
		if path, ok = strings.CutSuffix(path, ":"+t.verb); !ok {
			return nil, false
		}
	}
	if !strings.HasPrefix(path, t.prefix) {
		return nil, false // most templates, without looking further
	}
	var few [8]string // without memory of its own, as a rule
	parts := few[:0]
	for part := range strings.SplitSeq(path, "/") {
		parts = append(parts, part)
	}
	rest := len(t.segments) > 0 && t.segments[len(t.segments)-1].kind == restSegment
	if len(parts) < len(t.segments) && (!rest || len(parts) < len(t.segments)-1) || (len(parts) > len(t.segments) && !rest) {
		return nil, false
	}
	for i, s := range t.segments {
		switch s.kind {
		case literalSegment:
			if parts[i] != s.literal {
				return nil, false
			}
		case anySegment:
			if parts[i] == "" {
				return nil, false
			}
		}
	}
	values := make([]string, len(t.variables))
	for n, v := range t.variables {
		end := v.end
		if t.segments[end-1].kind == restSegment {
			end = len(parts)
		}
		taken := parts[min(v.start, len(parts)):min(end, len(parts))]
		if len(taken) > 1 {
			values[n] = strings.Join(taken, "/")
			continue
		}
		value, err := url.PathUnescape(strings.Join(taken, ""))
		if err != nil {
			return nil, false
		}
		values[n] = value
	}
	return values, true
}

// literalPrefix returns the literal segments that the template begins with.
func (t *template) literalPrefix() string {
	var out strings.Builder
	for i, s := range t.segments {
		if s.kind != literalSegment {
			break
		}
		if i > 0 {
			out.WriteByte('/')
		}
		out.WriteString(s.literal)
	}
	return out.String()
}

// specificity orders templates: the more literal segments, the sooner they are
// tried.
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
