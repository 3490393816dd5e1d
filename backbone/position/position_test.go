package position_test

import (
	"errors"
	"testing"

	"github.com/headgate/headgate/backbone/position"
	"github.com/headgate/headgate/contextkit"
	"pgregory.net/rapid"
)

func tenant(t interface{ Fatal(...any) }, name string) contextkit.TenantID {
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAPositionIsReadByItsTenantAloneAndForItsJournal(t *testing.T) {
	acme, globex := tenant(t, "acme"), tenant(t, "globex")
	rapid.Check(t, func(t *rapid.T) {
		sequence := rapid.Uint64().Draw(t, "sequence")
		codec := position.NewCodec([]byte("key"), 7)
		token := codec.Format(acme, sequence)
		if got, err := codec.Parse(acme, token); err != nil || got != sequence {
			t.Fatalf("parsed %d, %v; want %d", got, err, sequence)
		}
		if _, err := codec.Parse(globex, token); !errors.Is(err, position.ErrInvalid) {
			t.Fatalf("another tenant's token: %v", err)
		}
		if _, err := position.NewCodec([]byte("key"), 8).Parse(acme, token); !errors.Is(err, position.ErrEpoch) {
			t.Fatalf("another journal's token: %v", err)
		}
		if _, err := position.NewCodec([]byte("other"), 7).Parse(acme, token); !errors.Is(err, position.ErrInvalid) {
			t.Fatalf("another platform's token: %v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	codec := position.NewCodec([]byte("key"), 7)
	acme := tenant(f, "acme")
	f.Add(codec.Format(acme, 42))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		sequence, err := codec.Parse(acme, token)
		if err == nil && codec.Format(acme, sequence) != token {
			t.Fatalf("%q is read as %d, whose token is another", token, sequence)
		}
	})
}
