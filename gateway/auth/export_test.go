package auth

// CachedTokens returns the number of tokens in the verifier's cache.
func CachedTokens(v *Verifier) int {
	tokens, _ := v.known.size()
	return tokens
}
