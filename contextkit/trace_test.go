package contextkit_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
)

const validTraceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceparent_IsParsedByTheW3CRecommendation(t *testing.T) {
	cases := []struct {
		name, in, want string // want "" means invalid
	}{
		{"version 00", validTraceparent, validTraceparent},
		{
			"not sampled", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
			"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
		},
		{
			"unknown flags are not passed on", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
			"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
		},
		{
			"later version with more fields", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future",
			validTraceparent,
		},
		{
			"later version of the same length", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			validTraceparent,
		},
		{"later version, junk glued to the flags", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x", ""},
		{"version ff", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ""},
		{"version 00 with more fields", validTraceparent + "-00", ""},
		{"upper case", strings.ToUpper(validTraceparent), ""},
		{"all-zero trace id", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", ""},
		{"all-zero parent id", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", ""},
		{"too short", validTraceparent[:54], ""},
		{"wrong separators", strings.ReplaceAll(validTraceparent, "-", "_"), ""},
		{"leading space", " " + validTraceparent, ""},
		{"empty", "", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tp, err := contextkit.ParseTraceparent(tc.in)
			if (err != nil) != (tc.want == "") || tp.String() != tc.want {
				t.Fatalf("ParseTraceparent(%q) = %q, %v; want %q", tc.in, tp, err, tc.want)
			}
		})
	}
}

func TestTraceparent_RoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tp contextkit.Traceparent
		copy(tp.TraceID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "trace"))
		copy(tp.ParentID[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "parent"))
		tp.Flags = rapid.Byte().Draw(t, "flags") & 3
		tp.TraceID[0] |= 1 // all-zero ids are invalid
		tp.ParentID[0] |= 1
		got, err := contextkit.ParseTraceparent(tp.String())
		if err != nil || got != tp {
			t.Fatalf("parse(%q) = %+v, %v; want %+v", tp, got, err, tp)
		}
	})
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add(validTraceparent)
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")
	f.Add("")
	f.Fuzz(func(t *testing.T, in string) {
		tp, err := contextkit.ParseTraceparent(in)
		if err != nil {
			if !tp.IsZero() {
				t.Fatalf("an invalid traceparent yields %v", tp)
			}
			return
		}
		again, err := contextkit.ParseTraceparent(tp.String())
		if err != nil || again != tp {
			t.Fatalf("malformed header forwarded for %q: %q, %v", in, tp, err)
		}
		if tp.String()[3:52] != in[3:52] {
			t.Fatalf("ids of %q changed to %q", in, tp)
		}
	})
}

// Each half of each digit pair is checked, and so is a trace id in a separate header.
func TestParseTraceID_IsLowerCaseHexadecimal(t *testing.T) {
	good := strings.Repeat("0af7", 8)
	if id, ok := contextkit.ParseTraceID(good); !ok || id.String() != good {
		t.Errorf("%s is %v, %v", good, id, ok)
	}
	for _, bad := range []string{
		"", good[1:], good + "0", strings.Repeat("0", 32), "g" + good[1:], "0g" + good[2:], good[:31] + "A",
		good[:30] + "Z0",
	} {
		if id, ok := contextkit.ParseTraceID(bad); ok || id != (contextkit.TraceID{}) {
			t.Errorf("%q is the trace id %v", bad, id)
		}
	}
}
