package transcode

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStrings_EveryByteAtEveryPosition(t *testing.T) {
	for length := range 20 { // two words of eight bytes, and some more
		for at := range length {
			for c := range 256 {
				s := []byte(strings.Repeat("a", length))
				s[at] = byte(c)
				text, ok := appendString([]byte("x"), s)
				if ok != utf8.Valid(s) {
					t.Fatalf("%q: valid %t", s, ok)
				}
				var back string
				if ok && (text[0] != 'x' || json.Unmarshal(text[1:], &back) != nil || back != string(s)) {
					t.Fatalf("%q is written as %s", s, text)
				}
			}
		}
	}
}

func TestStrings_MixedBytes(t *testing.T) {
	for _, s := range []string{
		"", `"`, `\`, "\x00", "leave it at the \"back\" door, please", "twelve bytes" + `\\\"\"` + "twelve bytes",
		"plain and then ä", "ä and then plain, a while",
		"ünd \"ö\", \n\t\x1f\x7f", "日本語のテキスト", strings.Repeat(`a"`, 40), strings.Repeat("\u2028", 9),
	} {
		text, ok := appendString(nil, []byte(s))
		var back string
		if err := json.Unmarshal(text, &back); !ok || err != nil || back != s {
			t.Errorf("%q is written as %s (%t, %v)", s, text, ok, err)
		}
	}
}
