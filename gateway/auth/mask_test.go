package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/gateway/auth"
)

func TestMask_RetainsIDsAndNoSecret(t *testing.T) {
	key, _, err := auth.NewAPIKey("app", []string{"acme"}, []string{"query.read:*"}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimPrefix(key, "hgk_app_")
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
		if got := auth.Mask(text); got != want {
			t.Errorf("%.80q is masked as %.80q, want %.80q", text, got, want)
		}
	}
}
