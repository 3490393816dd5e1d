package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/contextkit"
)

// The common parts of the cases below: a position in a trace.
const (
	w3cTrace  = "12345678901234567890123456789012"
	w3cParent = "1234567890123456"
	w3cValid  = "00-" + w3cTrace + "-" + w3cParent + "-01"
)

// traceStep is a request with trace headers, in order, and the trace that the node must receive:
// the same or a new one, and a tracestate.
type traceStep struct {
	send  [][2]string
	same  bool
	state string
	flags byte // that must be set
}

// continued is a step that continues its trace, and started one that begins a trace.
func continued(state string, send ...[2]string) traceStep {
	return traceStep{send: send, same: true, state: state}
}
func started(send ...[2]string) traceStep { return traceStep{send: send} }

// parent and state are single headers.
func parent(value string) [2]string { return [2]string{contextkit.HeaderTraceparent, value} }
func state(value string) [2]string  { return [2]string{contextkit.HeaderTracestate, value} }

// within are steps that send a tracestate in a valid trace: what is received, then what is sent.
func within(want string, values ...string) traceStep {
	send := [][2]string{parent(w3cValid)}
	for _, value := range values {
		send = append(send, state(value))
	}
	return continued(want, send...)
}

// numbered returns tracestate members n0=0 … of the given range.
func numbered(from, to int) string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("n%d=%d", i, i))
	}
	return strings.Join(list, ",")
}

var (
	everyKeyCharacter   = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
	everyValueCharacter = " !\"#$%&'()*+-./0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
)

// traceCases are those of the W3C's test suite for Trace Context at its strictest, level 2, one row
// each under the suite's name.
// Source: https://github.com/w3c/trace-context, test/test.py.
var traceCases = []struct {
	name  string
	steps []traceStep
}{
	{"both_traceparent_and_tracestate_missing", []traceStep{started()}},
	{"traceparent_included_tracestate_missing", []traceStep{continued("", parent(w3cValid))}},
	{"traceparent_duplicated", []traceStep{
		started(parent("00-12345678901234567890123456789011-"+w3cParent+"-01"), parent(w3cValid)),
		started(parent(w3cValid), parent(w3cValid)),
	}},
	{
		"traceparent_header_name",
		[]traceStep{started([2]string{"trace-parent", w3cValid}), started([2]string{"trace.parent", w3cValid})},
	},
	{"traceparent_header_name_valid_casing", []traceStep{
		continued("", [2]string{"TraceParent", w3cValid}), continued("", [2]string{"TrAcEpArEnT", w3cValid}),
		continued("", [2]string{"TRACEPARENT", w3cValid}),
	}},
	{"traceparent_version_0x00", []traceStep{started(parent(w3cValid + ".")), started(parent(w3cValid + "-more"))}},
	{"traceparent_version_0xcc", []traceStep{
		continued("", parent("cc"+w3cValid[2:])), continued("", parent("cc"+w3cValid[2:]+"-more")),
		started(parent("cc" + w3cValid[2:] + ".more")),
	}},
	{
		"traceparent_version_0xff",
		[]traceStep{started(parent("ff" + w3cValid[2:])), started(parent("ff" + w3cValid[2:] + "-more"))},
	},
	{
		"traceparent_version_illegal_characters",
		[]traceStep{
			started(parent(".0" + w3cValid[2:])), started(parent("0." + w3cValid[2:])),
			started(parent("0A" + w3cValid[2:])),
		},
	},
	{"traceparent_version_too_long", []traceStep{started(parent("0" + w3cValid)), started(parent("00" + w3cValid))}},
	{"traceparent_version_too_short", []traceStep{started(parent(w3cValid[1:]))}},
	{
		"traceparent_trace_id_all_zero",
		[]traceStep{started(parent("00-" + strings.Repeat("0", 32) + "-" + w3cParent + "-01"))},
	},
	{"traceparent_trace_id_illegal_characters", []traceStep{
		started(parent("00-." + w3cTrace[1:] + "-" + w3cParent + "-01")),
		started(parent("00-" + w3cTrace[:31] + ".-" + w3cParent + "-01")),
		started(parent("00-" + w3cTrace[:31] + "F-" + w3cParent + "-01")),
	}},
	{"traceparent_trace_id_too_long", []traceStep{started(parent("00-" + w3cTrace + "3-" + w3cParent + "-01"))}},
	{"traceparent_trace_id_too_short", []traceStep{started(parent("00-" + w3cTrace[:31] + "-" + w3cParent + "-01"))}},
	{
		"traceparent_parent_id_all_zero",
		[]traceStep{started(parent("00-" + w3cTrace + "-" + strings.Repeat("0", 16) + "-01"))},
	},
	{"traceparent_parent_id_illegal_characters", []traceStep{
		started(parent("00-" + w3cTrace + "-." + w3cParent[1:] + "-01")),
		started(parent("00-" + w3cTrace + "-" + w3cParent[:15] + ".-01")),
	}},
	{"traceparent_parent_id_too_long", []traceStep{started(parent("00-" + w3cTrace + "-" + w3cParent + "7-01"))}},
	{"traceparent_parent_id_too_short", []traceStep{started(parent("00-" + w3cTrace + "-" + w3cParent[:15] + "-01"))}},
	{
		"traceparent_trace_flags_illegal_characters",
		[]traceStep{
			started(parent(w3cValid[:53] + ".0")), started(parent(w3cValid[:53] + "0.")),
			started(parent(w3cValid[:53] + "0A")),
		},
	},
	{"traceparent_trace_flags_too_long", []traceStep{started(parent(w3cValid[:53] + "001"))}},
	{"traceparent_trace_flags_too_short", []traceStep{started(parent(w3cValid[:53] + "1"))}},
	{"traceparent_ows_handling", []traceStep{
		continued("", parent(" "+w3cValid)), continued("", parent("\t"+w3cValid)), continued("", parent(w3cValid+" ")),
		continued("", parent(w3cValid+"\t")), continued("", parent("\t "+w3cValid+" \t")),
	}},
	{
		"tracestate_included_traceparent_missing",
		[]traceStep{started(state("foo=1")), started(state("foo=1,bar=2")), started(parent("junk"), state("foo=1"))},
	},
	{"tracestate_included_traceparent_included", []traceStep{within("foo=1,bar=2", "foo=1,bar=2")}},
	{
		"tracestate_header_name",
		[]traceStep{
			continued("", parent(w3cValid), [2]string{"trace-state", "foo=1"}),
			continued("", parent(w3cValid), [2]string{"trace.state", "foo=1"}),
		},
	},
	{"tracestate_header_name_valid_casing", []traceStep{
		continued("foo=1", parent(w3cValid), [2]string{"TraceState", "foo=1"}),
		continued("foo=1", parent(w3cValid), [2]string{"TrAcEsTaTe", "foo=1"}),
		continued("foo=1", parent(w3cValid), [2]string{"TRACESTATE", "foo=1"}),
	}},
	{
		"tracestate_empty_header",
		[]traceStep{within("", ""), within("foo=1", "foo=1", ""), within("foo=1", "", "foo=1")},
	},
	{
		"tracestate_multiple_headers_different_keys",
		[]traceStep{within("foo=1,bar=2,rojo=1,congo=2,baz=3", "foo=1,bar=2", "rojo=1,congo=2", "baz=3")},
	},
	{"tracestate_duplicated_keys", []traceStep{
		within("foo=1", "foo=1,foo=1"), within("foo=1", "foo=1,foo=2"), within("foo=1", "foo=1", "foo=1"),
		within("foo=1,bar=1", "foo=1,bar=1", "foo=2"),
	}},
	{"tracestate_all_allowed_characters", []traceStep{
		within(everyKeyCharacter+"="+everyValueCharacter, everyKeyCharacter+"="+everyValueCharacter),
		within(everyKeyCharacter+"@a-z0-9_-*/="+everyValueCharacter,
			everyKeyCharacter+"@a-z0-9_-*/="+everyValueCharacter),
	}},
	{"tracestate_ows_handling", []traceStep{
		within("foo=1,bar=2,baz=3", "foo=1 \t , \t bar=2, \t baz=3"),
		within("foo=1,bar=2,baz=3", "foo=1\t \t,\t \tbar=2,\t \tbaz=3"),
		within("foo=1", " foo=1"), within("foo=1", "\tfoo=1"), within("foo=1", "foo=1 "), within("foo=1", "foo=1\t"),
		within("foo=1", "\t foo=1 \t"),
	}},
	{
		"tracestate_key_illegal_characters",
		[]traceStep{within("", "foo =1"), within("", "FOO=1"), within("", "foo.bar=1")},
	},
	{"tracestate_key_illegal_vendor_format", []traceStep{
		within("foo@=1,bar=2", "foo@=1,bar=2"), within("", "@foo=1,bar=2"),
		within("foo@@bar=1,bar=2", "foo@@bar=1,bar=2"), within("foo@bar@baz=1,bar=2", "foo@bar@baz=1,bar=2"),
	}},
	{"tracestate_member_count_limit", []traceStep{
		within(numbered(0, 32), numbered(0, 10), numbered(10, 20), numbered(20, 30), numbered(30, 32)),
		within("", numbered(0, 10), numbered(10, 20), numbered(20, 30), numbered(30, 33)),
	}},
	{"tracestate_key_length_limit", []traceStep{
		within("foo=1,"+strings.Repeat("z", 256)+"=1", "foo=1", strings.Repeat("z", 256)+"=1"),
		within("", "foo=1", strings.Repeat("z", 257)+"=1"),
		within("foo=1,"+strings.Repeat("t", 241)+"@"+strings.Repeat("v", 14)+"=1", "foo=1",
			strings.Repeat("t", 241)+"@"+strings.Repeat("v", 14)+"=1"),
		within("foo=1,"+strings.Repeat("t", 242)+"@v=1", "foo=1", strings.Repeat("t", 242)+"@v=1"),
		within("foo=1,t@"+strings.Repeat("v", 15)+"=1", "foo=1", "t@"+strings.Repeat("v", 15)+"=1"),
	}},
	{"tracestate_value_illegal_characters", []traceStep{within("", "foo=bar=baz"), within("", "foo=,bar=3")}},
	{
		"multiple_requests_with_valid_traceparent",
		[]traceStep{continued("", parent(w3cValid)), continued("", parent(w3cValid)), continued("", parent(w3cValid))},
	},
	{"multiple_requests_without_traceparent", []traceStep{started(), started(), started()}},
	{"multiple_requests_with_illegal_traceparent", []traceStep{
		started(parent("00-" + strings.Repeat("0", 32) + "-" + w3cParent + "-01")),
		started(parent("00-" + strings.Repeat("0", 32) + "-" + w3cParent + "-01")),
		started(parent("00-" + strings.Repeat("0", 32) + "-" + w3cParent + "-01")),
	}},
	{"propagates_random_flag", []traceStep{
		{send: [][2]string{parent(w3cValid[:53] + "02")}, same: true, flags: contextkit.FlagRandom},
		{
			send:  [][2]string{parent(w3cValid[:53] + "ff")},
			same:  true,
			flags: contextkit.FlagRandom | contextkit.FlagSampled,
		},
	}},
}

// sendRaw makes a REST call over HTTP/1.1 with unchanged headers.
func (e *edge) sendRaw(t *testing.T, token string, headers [][2]string) error {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	var text strings.Builder
	fmt.Fprintf(
		&text,
		"POST /v1/query/wallets HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: "+
			"%s\r\nContent-Length: 2\r\n",
		token,
	)
	for _, header := range headers {
		fmt.Fprintf(&text, "%s: %s\r\n", header[0], header[1])
	}
	if _, err := io.WriteString(conn, text.String()+"\r\n{}"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

func TestTraceContext_W3CLevel2(t *testing.T) {
	if len(traceCases) != 41 {
		t.Fatalf("%d cases, want the suite's 41", len(traceCases))
	}
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		token := e.tokenOf(t, "app", mirrorRights...)
		send := map[string]func(t *testing.T, headers [][2]string) error{
			"REST over HTTP/1.1": func(
				t *testing.T, headers [][2]string,
			) error {
				t.Helper()
				return e.sendRaw(t, token, headers)
			},
		}
		for _, w := range []way{
			{"connect+json", false},
			{"grpc", false},
			{"grpcweb", false},
			{"native grpc", false},
			{"native grpc", true},
		} {
			send[w.String()] = func(t *testing.T, headers [][2]string) error {
				t.Helper()
				all := http.Header{"Authorization": {token}}
				for _, header := range headers {
					name := http.CanonicalHeaderKey(header[0])
					all[name] = append(all[name], header[1])
				}
				return w.do(t, e, m, all).err
			}
		}
		for way, send := range send {
			for _, tc := range traceCases {
				t.Run(way+"/"+tc.name, func(t *testing.T) {
					traces, spans := map[string]bool{}, map[contextkit.SpanID]bool{}
					for _, step := range tc.steps {
						m.set(nil, nil)
						if err := send(t, step.send); err != nil {
							t.Fatalf("%q: %v", step.send, err)
						}
						checkTrace(t, m.received(), step, traces, spans)
					}
					if len(spans) != len(tc.steps) {
						t.Errorf("%d requests, %d spans", len(tc.steps), len(spans))
					}
				})
			}
		}
	})
}

// checkTrace checks the trace that the node received in a step, and records its trace and span.
func checkTrace(
	t *testing.T, seen http.Header, step traceStep, traces map[string]bool, spans map[contextkit.SpanID]bool,
) {
	t.Helper()
	positions, states := seen.Values(contextkit.HeaderTraceparent), seen.Values(contextkit.HeaderTracestate)
	if len(positions) != 1 || len(states) > 1 {
		t.Fatalf("%q: the node received traceparent %q and tracestate %q", step.send, positions, states)
	}
	position, err := contextkit.ParseTraceparent(positions[0])
	if err != nil || positions[0][:3] != "00-" {
		t.Fatalf("%q: the node received traceparent %q: %v", step.send, positions[0], err)
	}
	if (position.TraceID.String() == w3cTrace) != step.same || positions[0][36:52] == w3cParent ||
		position.Flags&step.flags != step.flags {
		t.Errorf("%q: the node received traceparent %q, want the same trace: %v, flags %x", step.send, positions[0],
			step.same, step.flags)
	}
	if got := strings.Join(states, ""); got != step.state {
		t.Errorf("%q: the node received tracestate %q, want %q", step.send, got, step.state)
	}
	if !step.same && traces[position.TraceID.String()] {
		t.Errorf("%q: trace %s was not restarted", step.send, position.TraceID)
	}
	traces[position.TraceID.String()], spans[position.ParentID] = true, true
}
