package postgres

import "strings"

// PostgreSQL's text holds every character but NUL, which JSON may have. It is
// written as two characters of which the first is no character (U+FFFE), and that
// one as itself with a second, so that every text comes back as it was and equal
// texts stay equal.
var (
	escaper   = strings.NewReplacer("\x00", "\uFFFE0", "\uFFFE", "\uFFFE1")
	unescaper = strings.NewReplacer("\uFFFE0", "\x00", "\uFFFE1", "\uFFFE")
)

// escape returns a value as the database takes it.
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
