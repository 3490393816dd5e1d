package rights_test

import (
	"testing"

	"github.com/headgate/headgate/internal/rights"
)

// What a right includes, it covers: a holder that grants an included right grants nothing that it does not have.
func TestRight_IncludesWhatItCovers(t *testing.T) {
	t.Parallel()
	texts := []string{
		"query.read", "query.read:*", "query.read:or*", "query.read:orders", "query.read:orders*",
		"query.read:orders.a",
		"query.read:orders.*", "query.write", "query.write:orders",
		"command.submit", "command.submit:*", "command.submit:transfer", "command.submit:transfer.request",
		"command.submit:transfer.*", "command.submit:transfer.re*", "command.submit:tr*", "command.submit:transfers.x",
		"command.internal", "command.internal:transfer", "command.internal:transfer.request",
	}
	names := []string{"", "or", "orders", "orders.a", "orders.", "ordersx", "transfer", "tr", "transfers", "other"}
	parts := []string{"", "request", "re", "x", "a"}
	var all []rights.Right
	for _, text := range texts {
		right, err := rights.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, right)
	}
	for _, held := range all {
		for _, granted := range all {
			if !held.Includes(granted) {
				continue
			}
			if held.Action != granted.Action {
				t.Errorf("%s includes %s", held, granted)
			}
			commands := held.Action != "query.read" && held.Action != "query.write"
			for _, name := range names {
				if !commands && granted.Covers(name) && !held.Covers(name) {
					t.Errorf("%s includes %s, which alone covers %q", held, granted, name)
				}
				for _, part := range parts {
					if granted.CoversPart([]byte(name), []byte(part)) && !held.CoversPart([]byte(name), []byte(part)) {
						t.Errorf("%s includes %s, which alone covers %q of %q", held, granted, part, name)
					}
				}
			}
		}
	}
	for _, tc := range []struct {
		held, granted string
		want          bool
	}{
		{"query.read", "query.read:orders*", true},
		{"query.read:or*", "query.read:orders*", true},
		{"query.read:or*", "query.read:orders", true},
		{"query.read:orders*", "query.read:or*", false},
		{"query.read:orders", "query.read", false},
		{"query.read:*", "query.read", false},
		{"query.read:orders", "query.read:orders.a", false},
		{"query.read", "query.write", false},
		{"command.submit:transfer", "command.submit:transfer.request", true},
		{"command.submit:transfer", "command.submit:transfers.x", false},
		{"command.submit:transfer.request", "command.submit:transfer", false},
		{"command.submit", "command.internal", false},
		{"command.internal:transfer", "command.internal:transfer.request", true},
	} {
		held, _ := rights.Parse(tc.held)
		granted, _ := rights.Parse(tc.granted)
		if held.Includes(granted) != tc.want {
			t.Errorf("%s includes %s: %v", tc.held, tc.granted, !tc.want)
		}
	}
}
