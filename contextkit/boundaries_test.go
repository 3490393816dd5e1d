package contextkit_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
)

// Each separator of a traceparent is required by itself.
func TestTraceparent_EachSeparatorIsRequired(t *testing.T) {
	for i := range validTraceparent {
		if validTraceparent[i] != '-' {
			continue
		}
		if _, err := contextkit.ParseTraceparent(validTraceparent[:i] + "_" + validTraceparent[i+1:]); err == nil {
			t.Errorf("a traceparent without the separator at %d is accepted", i)
		}
	}
}

// A member of 128 characters is not long: longer ones are left out before it, the first one as well.
func TestCombineTracestate_MembersBeyond128AreLeftOutFirst(t *testing.T) {
	if got, want := contextkit.CombineTracestate([]string{"a=" + strings.Repeat("v", 200) + "," + manyMembers(7, 128)}),
		manyMembers(7, 128); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A depth is a decimal number of at most 1,000,000; what is none counts as that of a client's call.
func TestDepth_UnreadableIsZero(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "0": 0, "1": 1, "-1": 0, "-999999": 0, "x": 0, "1x": 0, "1000000": 1000000, "9999999": 1000000,
		"10000000": 0,
	} {
		rc, err := contextkit.ExtractNATS(nats.Header{contextkit.NATSCausationDepth: {text}})
		if err != nil || rc.Depth != want {
			t.Errorf("%q: %d, %v, want %d", text, rc.Depth, err, want)
		}
	}
}

// The first and the last character of each range belong to kinds and ids.
func TestCharacters_RangesIncludeTheirEnds(t *testing.T) {
	const ends = "azAZ09-_"
	if kind, err := contextkit.ParseKind(ends); err != nil || kind != ends {
		t.Errorf("kind: %q, %v", kind, err)
	}
	if !contextkit.ValidID(ends) {
		t.Errorf("%q is no id", ends)
	}
	for _, outside := range "`{@[/:" { // beside the ends in ASCII
		if _, err := contextkit.ParseKind(string(outside)); err == nil {
			t.Errorf("%q is a kind", outside)
		}
	}
}

// An id has its hyphens, version and variant at their places (RFC 9562 §4).
func TestIsNewID_EachPlaceIsChecked(t *testing.T) {
	id := contextkit.NewID()
	for i := range id {
		if contextkit.IsNewID(id[:i] + "_" + id[i+1:]) {
			t.Errorf("an id with _ at %d is accepted", i)
		}
	}
}

// Both halves of a new trace id are random (W3C Trace Context level 2 §2.3.1).
func TestNewTraceparent_BothHalvesAreRandom(t *testing.T) {
	a, b := contextkit.NewTraceparent().TraceID, contextkit.NewTraceparent().TraceID
	if [8]byte(a[:8]) == [8]byte(b[:8]) || [8]byte(a[8:]) == [8]byte(b[8:]) {
		t.Errorf("%v and %v have a half in common", a, b)
	}
}

// A message without a traceparent may name its trace, once.
func TestExtractNATS_TraceIDWithoutTraceparent(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for _, values := range [][]string{{trace}, {trace, trace}} {
		rc, err := contextkit.ExtractNATS(nats.Header{contextkit.NATSTraceID: values})
		if err != nil || (rc.TraceID.String() == trace) != (len(values) == 1) {
			t.Errorf("%q: trace %v, %v", values, rc.TraceID, err)
		}
	}
}

// Ids are UUIDs of version 7 (RFC 9562): they begin with the time of the call, or with the present time without one.
func TestID_BeginsWithTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rc, _ := contextkit.FromContext(contextkit.PlatformContext(t.Context()))
		called, err := contextkit.Extract(http.Header{})
		if err != nil || !called.Began().Equal(time.Now()) {
			t.Errorf("the call began at %v, %v", called.Began(), err)
		}
		message, err := contextkit.ExtractNATS(nil)
		if err != nil {
			t.Error(err)
		}
		for i, id := range []string{
			contextkit.NewID(), rc.RequestID, rc.CorrelationID, called.RequestID, called.CorrelationID,
			message.RequestID, message.CorrelationID,
		} {
			if !contextkit.IsNewID(id) {
				t.Errorf("%d: %q is no UUID of version 7", i, id)
				continue
			}
			at, err := strconv.ParseInt(strings.ReplaceAll(id, "-", "")[:12], 16, 64)
			if err != nil || at != time.Now().UnixMilli() {
				t.Errorf("%d: %s was made at %d, want %d", i, id, at, time.Now().UnixMilli())
			}
		}
	})
}

// body is the body of a request.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

// A request without a context fails, with and without a body, which is then closed ([http.RoundTripper]).
func TestHTTPTransport_RequestWithoutContextFails(t *testing.T) {
	sent := &body{Reader: strings.NewReader("x")}
	for _, reader := range []io.Reader{nil, sent} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:1/", reader)
		if err != nil {
			t.Fatal(err)
		}
		res, err := contextkit.HTTPTransport(http.DefaultTransport).RoundTrip(request)
		if !errors.Is(err, contextkit.ErrNoContext) {
			t.Errorf("%v, want %v", err, contextkit.ErrNoContext)
		}
		if res != nil {
			_ = res.Body.Close()
		}
	}
	if !sent.closed {
		t.Error("the body of a failed request is not closed")
	}
}
