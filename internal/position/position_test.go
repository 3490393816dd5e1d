package position_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/token"
)

func tenant(t interface{ Fatal(...any) }, name string) contextkit.TenantID {
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// versions are codecs that issue each version.
func versions(key string, epoch int64) map[string]*position.Codec {
	return map[string]*position.Codec{
		"1": position.NewCodec([]byte(key), at(epoch), &token.Gate{}),
		"2": position.NewCodec([]byte(key), at(epoch), nil),
	}
}

func TestPosition_IsReadByItsTenantAloneAndForItsJournal(t *testing.T) {
	acme, globex := tenant(t, "acme"), tenant(t, "globex")
	rapid.Check(t, func(t *rapid.T) {
		sequence := rapid.Uint64().Draw(t, "sequence")
		for version, codec := range versions("key", 7) {
			text := codec.Format(acme, sequence)
			if again := codec.Format(acme, sequence); again != text {
				t.Fatalf("version %s: equal positions are %s and %s", version, text, again)
			}
			for _, reader := range versions("key", 7) {
				if got, err := reader.Parse(acme, text); err != nil || got != sequence {
					t.Fatalf("version %s: parsed %d, %v; want %d", version, got, err, sequence)
				}
				if _, err := reader.Parse(globex, text); !errors.Is(err, position.ErrInvalid) {
					t.Fatalf("version %s: another tenant's token: %v", version, err)
				}
			}
			if _, err := versions("key", 8)[version].Parse(acme, text); !errors.Is(err, position.ErrEpoch) {
				t.Fatalf("version %s: another journal's token: %v", version, err)
			}
			if _, err := versions("other", 7)[version].Parse(acme, text); !errors.Is(err, position.ErrInvalid) {
				t.Fatalf("version %s: another platform's token: %v", version, err)
			}
		}
	})
}

// Two tenants that compare their tokens learn nothing of each other's events: neither is
// the sequence in a token, nor have tokens of the same, or of neighboring, sequences
// anything in common.
func TestPosition_DoesNotRevealItsSequence(t *testing.T) {
	codec := position.NewCodec([]byte("key"), at(7), nil)
	seen := map[[8]byte]bool{}
	for _, name := range []string{"acme", "globex"} {
		for sequence := range uint64(1000) {
			raw, err := base64.RawURLEncoding.DecodeString(codec.Format(tenant(t, name), sequence))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(raw, binary.BigEndian.AppendUint64(nil, sequence)) {
				t.Fatalf("sequence %d is in its token", sequence)
			}
			for i := 1; i+8 <= len(raw); i++ {
				if part := [8]byte(raw[i:]); seen[part] {
					t.Fatalf("the token of sequence %d of %s has 8 bytes of another", sequence, name)
				} else {
					seen[part] = true
				}
			}
		}
	}
}

func TestPosition_VersionFollowsTheGate(t *testing.T) {
	var gate token.Gate
	codec, acme := position.NewCodec([]byte("key"), at(7), &gate), tenant(t, "acme")
	version := func() byte {
		raw, err := base64.RawURLEncoding.DecodeString(codec.Format(acme, 42))
		if err != nil {
			t.Fatal(err)
		}
		return raw[0]
	}
	if v := version(); v != 1 {
		t.Errorf("version %d is issued at a closed gate", v)
	}
	gate.Set(token.Newest)
	if v := version(); v != 2 {
		t.Errorf("version %d is issued at an open gate", v)
	}
	gate.Set(1)
	if v := version(); v != 1 {
		t.Errorf("version %d is issued once the gate is closed again", v)
	}
}

// A position of a view has the fingerprint of its definition, once every node reads it, and is
// read as a position wherever one is.
func TestPosition_OfAViewHasItsFingerprint(t *testing.T) {
	var gate token.Gate
	codec, acme := position.NewCodec([]byte("key"), at(7), &gate), tenant(t, "acme")
	of := position.View{Fingerprint: 0xabcdef, Filter: 1 << 63}
	for version := range token.Newest + 1 {
		gate.Set(version)
		text := codec.FormatView(acme, 42, of)
		sequence, view, err := codec.ParseView(acme, text)
		if err != nil || sequence != 42 {
			t.Fatalf("version %d: %d, %v", version, sequence, err)
		}
		if with := view != nil; with != (version >= 3) || with && *view != of {
			t.Errorf("version %d: it has %v", version, view)
		}
		if sequence, err := codec.Parse(acme, text); err != nil || sequence != 42 {
			t.Errorf("version %d: read as a position: %d, %v", version, sequence, err)
		}
		if _, _, err := codec.ParseView(tenant(t, "globex"), text); !errors.Is(err, position.ErrInvalid) {
			t.Errorf("version %d: another tenant's: %v", version, err)
		}
		if len(text) > 256 {
			t.Errorf("version %d: %d bytes", version, len(text))
		}
	}
}

func FuzzParse(f *testing.F) {
	acme := tenant(f, "acme")
	for _, codec := range versions("key", 7) {
		f.Add(codec.Format(acme, 42))
	}
	f.Add("")
	f.Add(position.NewCodec([]byte("key"), at(7), nil).FormatView(acme, 42, position.View{Fingerprint: 1}))
	f.Fuzz(func(t *testing.T, text string) {
		codecs := versions("key", 7)
		sequence, view, err := codecs["2"].ParseView(acme, text)
		if err == nil && view != nil {
			if codecs["2"].FormatView(acme, sequence, *view) != text {
				t.Fatalf("%q is read as %d of %v, whose token is another", text, sequence, *view)
			}
			return
		}
		if err == nil && codecs["1"].Format(acme, sequence) != text && codecs["2"].Format(acme, sequence) != text {
			t.Fatalf("%q is read as %d, whose token is another", text, sequence)
		}
	})
}

// at returns an epoch that does not change.
func at(epoch int64) func() int64 { return func() int64 { return epoch } }
