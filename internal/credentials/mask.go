package credentials

import (
	"regexp"
	"strings"
)

var (
	// secretTexts matches API keys, of which the id is retained, and JSON Web Tokens (RFC 7519), whose header begins
	// with `{"`. Both may be truncated.
	secretTexts = regexp.MustCompile(
		`(hgk_[A-Za-z0-9.-]+_)[A-Za-z0-9_-]+|(eyJ)[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}`)
	// wholeCredential matches a text that is an API key or a signed token.
	wholeCredential = regexp.MustCompile(
		`^(?:hgk_[A-Za-z0-9.-]+_[A-Za-z0-9_-]+|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)$`)
)

// Mask returns a text in which the secrets of API keys and tokens are replaced by "…": for texts of callers that are
// stored or shown, as people paste a credential where its id is requested. A text without one is returned unchanged,
// without an allocation.
func Mask(text string) string {
	if !strings.Contains(text, "hgk_") && !strings.Contains(text, "eyJ") {
		return text
	}
	return secretTexts.ReplaceAllString(text, "${1}${2}…")
}

// IsCredential reports whether a text is an API key or a signed token, not the id of one.
func IsCredential(text string) bool { return wholeCredential.MatchString(text) }
