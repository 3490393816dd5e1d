package auth

import (
	"regexp"
	"strings"
)

// credentialTexts matches API keys, of which the id is retained, and JSON Web Tokens (RFC 7519), whose header begins
// with `{"`. Both may be truncated.
var credentialTexts = regexp.MustCompile(
	`(hgk_[A-Za-z0-9.-]+_)[A-Za-z0-9_-]+|(eyJ)[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}`,
)

// Mask returns a text in which the secrets of API keys and tokens are replaced by "…": for texts of callers that are
// stored or shown, as people paste a credential where its id is requested. A text without one is returned unchanged,
// without an allocation.
func Mask(text string) string {
	if !strings.Contains(text, apiKeyPrefix) && !strings.Contains(text, "eyJ") {
		return text
	}
	return credentialTexts.ReplaceAllString(text, "${1}${2}…")
}
