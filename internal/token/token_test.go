package token_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/token"
)

func TestSealer_OpensWhatItSealed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scope, content := rapid.String().Draw(t, "scope"), rapid.SliceOf(rapid.Byte()).Draw(t, "content")
		s := token.NewSealer([]byte("secret"), "page")
		sealed := s.Seal([]byte("v"), scope, content)
		if len(sealed) != 1+token.Overhead+len(content) || sealed[0] != 'v' {
			t.Fatalf("%d bytes", len(sealed))
		}
		if again := s.Seal([]byte("v"), scope, content); !bytes.Equal(again, sealed) {
			t.Fatal("equal contents have other tokens")
		}
		if got, err := s.Open(scope, sealed[1:]); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%q, %v; want %q", got, err, content)
		}
		for name, open := range map[string]func() ([]byte, error){
			"another scope": func() ([]byte, error) { return s.Open(scope+"x", sealed[1:]) },
			"another purpose": func() (
				[]byte, error,
			) {
				return token.NewSealer([]byte("secret"), "position").Open(scope, sealed[1:])
			},
			"another platform": func() (
				[]byte, error,
			) {
				return token.NewSealer([]byte("other"), "page").Open(scope, sealed[1:])
			},
			"a changed bit": func() ([]byte, error) {
				changed := bytes.Clone(sealed[1:])
				changed[rapid.IntRange(0, len(changed)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				return s.Open(scope, changed)
			},
		} {
			if _, err := open(); !errors.Is(err, token.ErrForged) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

// What is sealed one after the other is in no order, and no two share a beginning: each
// bit of a token changes with half of the contents.
func TestSealer_TokensRevealNoOrder(t *testing.T) {
	const count = 4096
	s := token.NewSealer([]byte("secret"), "position")
	var (
		before  []byte
		rising  int
		changes [token.Overhead + 8]int
	)
	for n := range uint64(count) {
		sealed := s.Seal(nil, "acme", binary.BigEndian.AppendUint64(nil, n))
		if before != nil {
			if bytes.Compare(sealed[token.Overhead:], before[token.Overhead:]) > 0 {
				rising++
			}
			for i := range sealed {
				if sealed[i]&1 != before[i]&1 {
					changes[i]++
				}
			}
		}
		before = sealed
	}
	near := func(n int) bool { return n > count*45/100 && n < count*55/100 } // 6 standard deviations
	if !near(rising) {
		t.Errorf("%d of %d contents follow the order of their numbers", rising, count)
	}
	for i, n := range changes {
		if !near(n) {
			t.Errorf("byte %d changes %d times of %d", i, n, count)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := token.NewSealer([]byte("secret"), "page")
	f.Add("acme", s.Seal(nil, "acme", []byte("content")))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, scope string, sealed []byte) {
		content, err := s.Open(scope, sealed)
		if err == nil && !bytes.Equal(s.Seal(nil, scope, content), sealed) {
			t.Fatalf("%x is read as %x, whose token is another", sealed, content)
		}
	})
}

func TestNumbers_PlainOnesAreReadUntilAllNodesSeal(t *testing.T) {
	sealed, plain := token.NewNumbers([]byte("secret"), "letters", nil), token.NewNumbers([]byte("secret"), "letters",
		&token.Gate{})
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint64().Draw(t, "number")
		for _, c := range []struct {
			reader *token.Numbers
			text   string
		}{
			{sealed, sealed.Format("acme", number)},
			{plain, sealed.Format("acme", number)},
			{plain, plain.Format("acme", number)},
		} {
			if got, err := c.reader.Parse("acme", c.text); err != nil || got != number {
				t.Fatalf("%s: %d, %v; want %d", c.text, got, err, number)
			}
		}
		if _, err := sealed.Parse("acme", plain.Format("acme", number)); !errors.Is(err, token.ErrForged) {
			t.Fatalf("plain number: %v", err)
		}
		text := sealed.Format("acme", number)
		if _, err := sealed.Parse("globex", text); !errors.Is(err, token.ErrForged) {
			t.Fatalf("another tenant's token: %v", err)
		}
		if _, err := token.NewNumbers(
			[]byte("secret"), "workflows", nil,
		).Parse("acme", text); !errors.Is(err, token.ErrForged) {
			t.Fatalf("another list's token: %v", err)
		}
	})
}

func FuzzNumber(f *testing.F) {
	numbers := token.NewNumbers([]byte("secret"), "letters", nil)
	f.Add(numbers.Format("acme", 42))
	f.Add("16")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := numbers.Parse("acme", text); err != nil && !errors.Is(err, token.ErrForged) {
			t.Fatal(err)
		}
	})
}
