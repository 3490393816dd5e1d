package contextkit_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
)

// members returns n members that differ.
func members(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("k%d=%d", i, i)
	}
	return strings.Join(list, ",")
}

func TestCombineTracestate_FollowsLevel2(t *testing.T) {
	long := strings.Repeat
	for name, row := range map[string]struct {
		values []string
		want   string
	}{
		"one member":                         {[]string{"a=1"}, "a=1"},
		"none":                               {nil, ""},
		"an empty header":                    {[]string{""}, ""},
		"white space alone":                  {[]string{" \t , \t,,"}, ""},
		"empty members are left out":         {[]string{",a=1,, ,\t,b=2,"}, "a=1,b=2"},
		"space and tabs around members":      {[]string{" \ta=1\t ,\t b=2 "}, "a=1,b=2"},
		"headers are combined in order":      {[]string{"a=1", "", "b=2,c=3", " ", "d=4"}, "a=1,b=2,c=3,d=4"},
		"leading space belongs to the value": {[]string{"a=  1 "}, "a=  1"},
		"of two with a key the first stays":  {[]string{"a=1,b=2,a=3", "b=4"}, "a=1,b=2"},
		"a key that begins another":          {[]string{"ab=1,a=2"}, "ab=1,a=2"},
		"every character of a key": {
			[]string{"abcdefghijklmnopqrstuvwxyz0123456789_-*/@=1"}, "abcdefghijklmnopqrstuvwxyz0123456789_-*/@=1",
		},
		"a key that begins with a digit": {[]string{"0a=1"}, "0a=1"},
		"keys of several tenants":        {[]string{"t@v=1,t@@v=2,t@=3"}, "t@v=1,t@@v=2,t@=3"},
		"every character of a value": {
			[]string{"a= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~"},
			"a= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~",
		},
		"a key of 256":   {[]string{long("k", 256) + "=1"}, long("k", 256) + "=1"},
		"a key of 257":   {[]string{"a=1", long("k", 257) + "=1"}, ""},
		"a value of 256": {[]string{"a=" + long("v", 256)}, "a=" + long("v", 256)},
		"a value of 257": {[]string{"b=1,a=" + long("v", 257)}, ""},
		"key and value of the greatest size": {
			[]string{long("k", 256) + "=" + long("v", 256)}, long("k", 256) + "=" + long("v", 256),
		},
		"a value of spaces":                 {[]string{"b=1,a=   "}, ""},
		"no value":                          {[]string{"b=1,a="}, ""},
		"no equals sign":                    {[]string{"b=1,a"}, ""},
		"no key":                            {[]string{"b=1,=1"}, ""},
		"two equals signs":                  {[]string{"a=b=c,d=1"}, ""},
		"a space in a key":                  {[]string{"a =1,b=2"}, ""},
		"a capital in a key":                {[]string{"A=1,b=2"}, ""},
		"a dot in a key":                    {[]string{"a.b=1,b=2"}, ""},
		"a key that begins with an at sign": {[]string{"@a=1,b=2"}, ""},
		"a key that begins with a hyphen":   {[]string{"-a=1,b=2"}, ""},
		"a tab in a value":                  {[]string{"a=1\t2,b=2"}, ""},
		"a control character in a value":    {[]string{"a=1\x012,b=2"}, ""},
		"a DEL in a value":                  {[]string{"a=1\x7f,b=2"}, ""},
		"a value beyond ASCII":              {[]string{"a=é,b=2"}, ""},
		"32 members":                        {[]string{members(32)}, members(32)},
		"32 members in two headers": {
			[]string{members(32)[:len("k0=0,k1=1")], members(32)[len("k0=0,k1=1,"):]}, members(32),
		},
		"32 members and empty ones":  {[]string{members(32) + ",,", ""}, members(32)},
		"33 members":                 {[]string{members(33)}, ""},
		"33 members, two of one key": {[]string{members(32) + ",k0=0"}, ""},
		"more than 1024: long members first": {
			[]string{
				"a=1,b=" + long("b", 200) + ",c=" + long("c", 127-2) + ",d=" + long("d", 250) + ",e=" + long("e", 250) +
					",f=" + long("f", 250) + ",g=1",
			},
			"a=1,b=" + long("b", 200) + ",c=" + long("c", 125) + ",d=" + long("d", 250) + ",e=" + long("e", 250) +
				",g=1",
		},
		"more than 1024: then the last ones": {[]string{manyMembers(20, 100)}, manyMembers(10, 100)},
		"1024 characters": {
			[]string{"a=" + long("a", 252) + ",b=" + long("b", 252) + ",c=" + long("c", 253) + ",d=" + long("d", 256)},
			"a=" + long("a", 252) + ",b=" + long("b", 252) + ",c=" + long("c", 253) + ",d=" + long("d", 256),
		},
	} {
		if got := contextkit.CombineTracestate(row.values); got != row.want {
			t.Errorf("%s: %q becomes %q, want %q", name, row.values, got, row.want)
		}
	}
}

// manyMembers returns n members of the given length, less the comma's.
func manyMembers(n, length int) string {
	list := make([]string, n)
	for i := range list {
		key := fmt.Sprintf("k%02d=", i)
		list[i] = key + strings.Repeat("v", length-len(key))
	}
	return strings.Join(list, ",")
}

func TestTracestate_IsDroppedWithoutAValidTraceparent(t *testing.T) {
	for name, row := range map[string]struct {
		traceparent []string
		same        bool
	}{
		"none":           {nil, false},
		"valid":          {[]string{validTraceparent}, true},
		"with OWS":       {[]string{" \t" + validTraceparent + "\t "}, true},
		"twice":          {[]string{validTraceparent, validTraceparent}, false},
		"in one header":  {[]string{validTraceparent + "," + validTraceparent}, false},
		"version ff":     {[]string{"ff" + validTraceparent[2:]}, false},
		"future version": {[]string{"01" + validTraceparent[2:] + "-more"}, true},
		"upper case":     {[]string{strings.ToUpper(validTraceparent)}, false},
	} {
		md := metadata{http.Header{http.CanonicalHeaderKey(contextkit.HeaderTracestate): {"a=1,\tb=2"}}}
		if row.traceparent != nil {
			md.Header[http.CanonicalHeaderKey(contextkit.HeaderTraceparent)] = row.traceparent
		}
		rc, err := contextkit.Extract(md)
		if want := map[bool]string{true: "a=1,b=2"}[row.same]; err != nil || rc.Tracestate != want ||
			(rc.TraceID.String() == validTraceparent[3:35]) != row.same {
			t.Errorf("%s: tracestate %q in trace %s, want %q; %v", name, rc.Tracestate, rc.TraceID, want, err)
		}
	}
}

// A malformed tracestate does not affect traceparent (W3C Trace Context §3.3).
func TestTracestate_MalformedLeavesTraceparentAlone(t *testing.T) {
	md := metadata{http.Header{}}
	md.Set(contextkit.HeaderTraceparent, validTraceparent)
	md.Set(contextkit.HeaderTracestate, "A=1")
	if rc, err := contextkit.Extract(md); err != nil || rc.TraceID.String() != validTraceparent[3:35] ||
		rc.Tracestate != "" {
		t.Errorf("%+v, %v", rc, err)
	}
}

func TestCombineTracestate_UnchangedHeaderAllocatesNothing(t *testing.T) {
	values := []string{members(32)}
	if n := testing.AllocsPerRun(100, func() { _ = contextkit.CombineTracestate(values) }); n != 0 {
		t.Errorf("%v objects", n)
	}
}

func TestCombineTracestate_ResultIsValidInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkTracestate(
			t,
			rapid.SliceOf(
				rapid.StringMatching(`([ \t]*([a-z@A]?[a-z0-9_@*/-]{0,20}=[ -+a-z]{0,40})?[ \t]*,?)*`),
			).Draw(t, "values"),
		)
	})
}

func FuzzCombineTracestate(f *testing.F) {
	f.Add("a=1, \tb=2,,", "c=3")
	f.Add(members(33), "")
	f.Add(manyMembers(20, 200), "a= 1 ")
	f.Fuzz(func(t *testing.T, one, two string) { checkTracestate(t, []string{one, two}) })
}

// checkTracestate checks what holds of every tracestate that is propagated.
func checkTracestate(t interface{ Fatalf(string, ...any) }, values []string) {
	got := contextkit.CombineTracestate(values)
	if again := contextkit.CombineTracestate([]string{got}); again != got {
		t.Fatalf("%q becomes %q and then %q", values, got, again)
	}
	if len(got) > 1024 || strings.Count(got, ",") > 31 {
		t.Fatalf("%q becomes %d characters, %d members", values, len(got), strings.Count(got, ",")+1)
	}
	seen := map[string]bool{}
	for member := range strings.SplitSeq(got, ",") {
		key, value, ok := strings.Cut(member, "=")
		if got != "" &&
			(!ok || seen[key] || value == "" ||
				strings.ContainsFunc(member, func(r rune) bool { return r < ' ' || r > '~' })) {
			t.Fatalf("%q becomes %q", values, got)
		}
		seen[key] = true
	}
}
