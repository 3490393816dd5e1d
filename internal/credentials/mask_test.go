package credentials

import (
	"strings"
	"testing"
)

func TestMask_RetainsIDsAndNoSecret(t *testing.T) {
	secret := strings.Repeat("Ab-9_", 8) + "xyz"
	key := "hgk_app_" + secret
	token := "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
	for text, want := range map[string]string{
		key:                            "hgk_app_…",
		"hgk_c.01a2-b_" + secret:       "hgk_c.01a2-b_…",
		"leaked: " + key + ", " + key:  "leaked: hgk_app_…, hgk_app_…",
		key[:30] + "…(76 bytes)":       "hgk_app_……(76 bytes)",
		"Bearer " + token + " of ada":  "Bearer eyJ… of ada",
		token[:30]:                     "eyJ…",
		"hgk_app":                      "hgk_app",
		"c.01a2":                       "c.01a2",
		"wallet_1 of eyJa, rebuilt":    "wallet_1 of eyJa, rebuilt",
		"":                             "",
		strings.Repeat("eyJ.", 1<<10):  strings.Repeat("eyJ.", 1<<10),
		"a right such as query.read:*": "a right such as query.read:*",
	} {
		if got := Mask(text); got != want {
			t.Errorf("%.80q is masked as %.80q, want %.80q", text, got, want)
		}
	}
}

func TestIsCredential_IDsAreNone(t *testing.T) {
	for text, want := range map[string]bool{
		"hgk_app_" + strings.Repeat("A", 43):                   true,
		"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl": true,
		"hgk_app":                       false,
		"c.01a2":                        false,
		"eyJqdGkiOiJhIn0":               false, // an id that is an object in base64
		"6f1c2a9e-8d0b-4f7e-9a51":       false,
		"the key hgk_app_secret leaked": false,
		"":                              false,
	} {
		if IsCredential(text) != want {
			t.Errorf("%q is a credential: %v", text, !want)
		}
	}
}
