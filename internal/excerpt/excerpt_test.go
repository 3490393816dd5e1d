package excerpt_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/headgate/headgate/internal/excerpt"
)

// encoded returns the larger of the text's encoded sizes.
func encoded(t testing.TB, text string) int {
	t.Helper()
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	percent := len(text) // PROTOCOL-HTTP2.md, "Percent-Encoded"
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			percent += 2
		}
	}
	return max(len(data)-2, percent)
}

func TestText_BoundHoldsOnceEncoded(t *testing.T) {
	const length = 95 << 10
	for name, text := range map[string]string{
		"ascii":       strings.Repeat("a", length),
		"quotes":      strings.Repeat(`"`, length),
		"backslashes": strings.Repeat(`\`, length),
		"control":     strings.Repeat("\x01", length),
		"percent":     strings.Repeat("%", length),
		"markup":      strings.Repeat("<&>", length/3),
		"two bytes":   strings.Repeat("é", length/2),
		"three bytes": strings.Repeat("世", length/3),
		"four bytes":  strings.Repeat("😀", length/4),
		"not UTF-8":   strings.Repeat("\xff", length),
		"cut rune":    strings.Repeat("a\xe4\xb8", length/3),
		"separators":  strings.Repeat("\u2028", length/3),
	} {
		for _, bound := range []int{64, excerpt.Name, excerpt.Message} {
			got := excerpt.Text(text, bound)
			if size := encoded(t, got); size > bound {
				t.Errorf("%s: %d encoded bytes, the bound is %d", name, size, bound)
			}
			if !strings.HasSuffix(got, " bytes)") {
				t.Errorf("%s: the cut is not marked: %q", name, got)
			}
		}
	}
}

func TestText_ReturnsTextWithinBound(t *testing.T) {
	for _, text := range []string{
		"", "wallet-1", strings.Repeat("a", excerpt.Name), strings.Repeat("😀", excerpt.Name/12),
		strings.Repeat(`"`, excerpt.Name/2),
	} {
		if got := excerpt.Text(text, excerpt.Name); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	text := strings.Repeat("a", excerpt.Name)
	if n := testing.AllocsPerRun(100, func() { excerpt.Text(text, excerpt.Name) }); n != 0 {
		t.Errorf("%v allocations for a text that fits", n)
	}
}

func FuzzText(f *testing.F) {
	f.Add("wallet", 10)
	f.Add(strings.Repeat("世\x00\xff\"", 100), 300)
	f.Fuzz(func(t *testing.T, text string, bound int) {
		bound %= 1 << 12
		got := excerpt.Text(text, bound)
		if got == text {
			return
		}
		if size := encoded(t, got); size > max(bound, 64) {
			t.Errorf("%d encoded bytes, the bound is %d", size, bound)
		}
		head, _, _ := strings.Cut(got, "…(")
		if !strings.HasPrefix(text, head) && !strings.Contains(head, "…") {
			t.Errorf("%q is not the beginning of %q", head, text)
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("a rune is cut: %q", got)
		}
	})
}
