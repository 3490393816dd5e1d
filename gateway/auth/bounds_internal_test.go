package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// A set has at most 256 keys.
func TestParseKeySet_NumberOfKeysIsBounded(t *testing.T) {
	set := func(n int) []byte {
		keys := make([]string, n)
		for i := range keys {
			public, _, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			keys[i] = fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"key-%d","x":%q}`, i,
				base64.RawURLEncoding.EncodeToString(public))
		}
		return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)
	}
	if keys, err := (&KeyRingConfig{}).parse(set(256)); err != nil || len(keys) != 256 {
		t.Errorf("256 keys: %d, %v", len(keys), err)
	}
	if _, err := (&KeyRingConfig{}).parse(set(257)); err == nil {
		t.Error("257 keys are accepted")
	}
}

// The cache's documented bounds: 4096 tokens and 16 MiB in all, and a thirty-second of both per subject.
func TestTokenCache_BoundsAreAsDocumented(t *testing.T) {
	if cachedTokens != 4096 || cachedBytes != 16<<20 || maxSubjectTokens != 128 || maxSubjectBytes != 512<<10 {
		t.Errorf("%d tokens, %d bytes; per subject %d and %d", cachedTokens, cachedBytes, maxSubjectTokens,
			maxSubjectBytes)
	}
}

// A token has at most 16 KiB; a longer one is rejected before anything of it is decoded.
func TestParseToken_LengthIsBounded(t *testing.T) {
	for length, want := range map[int]bool{maxTokenBytes: false, maxTokenBytes + 1: true} {
		if _, err := parseToken(strings.Repeat("x", length)); err == nil ||
			strings.Contains(err.Error(), "longer") != want {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
	if maxTokenBytes != 16<<10 {
		t.Errorf("a token may have %d bytes", maxTokenBytes)
	}
}
