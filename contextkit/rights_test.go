package contextkit_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/contextkit"
)

type rightsHeader http.Header

func (h rightsHeader) Get(name string) string      { return http.Header(h).Get(name) }
func (h rightsHeader) Values(name string) []string { return http.Header(h).Values(name) }
func (h rightsHeader) Set(name, value string)      { http.Header(h).Set(name, value) }

func TestRights_AreWhatTheGatewayStates(t *testing.T) {
	of := func(values ...string) contextkit.Rights {
		header := http.Header{}
		for _, value := range values {
			header.Add(contextkit.HeaderRights, value)
		}
		return contextkit.RightsOf(rightsHeader(header))
	}
	for _, tc := range []struct {
		rights []string
		want   bool
	}{
		{nil, false},
		{[]string{"command.internal"}, true},
		{[]string{"command.internal:transfer"}, true},
		{[]string{"command.internal:transfer.complete"}, true},
		{[]string{"command.internal:transfer.fail"}, false},
		{[]string{"command.internal:transfer.*"}, false},
		{[]string{"command.internal:*"}, false},
		{[]string{"command.internals"}, false},
		{[]string{"command.submit"}, false},
		{[]string{"thing.read:a b", "command.internal:wallet", "command.internal:transfer.complete"}, true},
		{[]string{"thing.read:a command.internal"}, false}, // a space does not make two rights of one
		{[]string{"thing.read:Zo\u00eb command.internal", "thing.read"}, false},
	} {
		rights := of(contextkit.EncodeRights(tc.rights...))
		if got := rights.Allow("command.internal", "transfer", "complete"); got != tc.want || !rights.Known() {
			t.Errorf("%q: %v, known %v; want %v", tc.rights, got, rights.Known(), tc.want)
		}
	}
	spaced := of(contextkit.EncodeRights("thing.read", "thing.read:Zo\u00eb b"))
	if !spaced.Allow("thing.read", "anything", "") {
		t.Error("a right before an escaped one is not read")
	}
	if alone := of(contextkit.EncodeRights("thing.read:Zo\u00eb b")); !alone.Allow("thing.read", "Zo\u00eb b", "") ||
		alone.Allow("thing.read", "Zo%C3%AB%20b", "") {
		t.Error("a right to a resource whose name is escaped is not the resource's")
	}
	if value := contextkit.EncodeRights("a.b", "c.d:e f"); value != "a.b c.d:e%20f" {
		t.Errorf("two rights are written as %q", value)
	}
	if none := of(); none.Known() || none.Allow("command.internal", "transfer", "complete") {
		t.Error("rights are known though the gateway states none")
	}
	if twice := of("none", "command.internal"); !twice.Known() ||
		twice.Allow("command.internal", "transfer", "complete") {
		t.Error("two statements count")
	}
	many := make([]string, 1000)
	for n := range many {
		many[n] = "thing.read:" + strings.Repeat("x", 50)
	}
	if size := len(contextkit.EncodeRights(many...)); size > 4<<10 || size < 3<<10 {
		t.Errorf("the rights take %d bytes", size)
	}
}
