package postgres

import "strings"

// PostgreSQL's text cannot contain NUL, which JSON can. NUL is stored as two characters of which the first is a
// noncharacter (U+FFFE), and U+FFFE as itself followed by another character, so that every text is restored unchanged
// and equal texts stay equal.
var (
	escaper   = strings.NewReplacer("\x00", "\uFFFE0", "\uFFFE", "\uFFFE1")
	unescaper = strings.NewReplacer("\uFFFE0", "\x00", "\uFFFE1", "\uFFFE")
)

// escape returns a value as the database stores it.
func escape(value any) any {
	text, ok := value.(string)
	if !ok || !strings.ContainsAny(text, "\x00\uFFFE") {
		return value
	}
	return escaper.Replace(text)
}

func unescape(text string) string {
	if !strings.Contains(text, "\uFFFE") {
		return text
	}
	return unescaper.Replace(text)
}
