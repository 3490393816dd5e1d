package fastpath_test

import (
	"net/http"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/fastpath"
)

func TestPaths_ZeroValueIsFast(t *testing.T) {
	fast, plain := fastpath.Paths{}.Choices(), fastpath.AllPlain().Choices()
	for i := range fast {
		if fast[i].Path != fastpath.Fast || plain[i].Path != fastpath.Plain || fast[i].Part != plain[i].Part {
			t.Errorf("%v and %v, want fast and plain", fast[i], plain[i])
		}
	}
	if text := (fastpath.Paths{Sockets: fastpath.Plain}).String(); !strings.Contains(
		text, "upstream=fast sockets=plain",
	) {
		t.Errorf("the choices are %q", text)
	}
}

func TestValidate_NamesTheInvalidField(t *testing.T) {
	if err := fastpath.AllPlain().Validate(); err != nil {
		t.Error(err)
	}
	err := fastpath.Paths{Sockets: "slow"}.Validate()
	if err == nil || err.Error() != `sockets: is "slow", want fast or plain` {
		t.Errorf("%v", err)
	}
}

func TestPaths_PlainReturnsWhatItIsGiven(t *testing.T) {
	plain, mux := fastpath.AllPlain(), http.NewServeMux()
	if plain.Handler(mux) != http.Handler(mux) || plain.Conn(nil) != nil || plain.Listener(nil) != nil {
		t.Error("something is wrapped")
	}
	former := debug.SetGCPercent(100)
	defer debug.SetGCPercent(former)
	plain.Collect()()
	if percent := debug.SetGCPercent(100); percent != 100 {
		t.Errorf("garbage is collected at %d %%", percent)
	}
}
