package query

import "strings"

// Pattern is a text with wildcards in the syntax of SQL's LIKE: % matches any text, and a backslash escapes the next
// character.
type Pattern string

// pattern returns the pattern of a literal, or false if it has no wildcard.
func pattern(text string) (Pattern, bool) {
	if !strings.Contains(text, "*") {
		return "", false
	}
	escaped := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text)
	return Pattern(strings.NewReplacer("*", "%", string(literalStar), "*").Replace(escaped)), true
}

// Match reports whether the pattern matches text. Its time is proportional to the text and the pattern.
func (p Pattern) Match(text string) bool {
	parts := p.parts()
	if len(parts) == 1 {
		return text == parts[0]
	}
	rest, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, parts[last])
}

// parts returns the texts between the wildcards, at least one.
func (p Pattern) parts() []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '%':
			parts = append(parts, part.String())
			part.Reset()
			continue
		case c == '\\' && i+1 < len(p):
			i++
		}
		part.WriteByte(p[i])
	}
	return append(parts, part.String())
}
