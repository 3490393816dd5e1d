package auth

// CachedTokens returns the number of tokens in the verifier's cache.
func CachedTokens(v *Verifier) int {
	v.known.mu.Lock()
	defer v.known.mu.Unlock()
	return len(v.known.entries)
}
