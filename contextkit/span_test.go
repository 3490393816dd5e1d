package contextkit_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/headgate/headgate/contextkit"
)

// metadata is http.Header as the contract's metadata.
type metadata struct{ http.Header }

func (m metadata) Values(key string) []string { return m.Header.Values(key) }

// hop returns the contract as the next process takes it out of what ctx sends.
func hop(ctx context.Context, t *testing.T) contextkit.RequestContext {
	t.Helper()
	md := metadata{http.Header{}}
	if err := contextkit.Inject(ctx, md); err != nil {
		t.Fatal(err)
	}
	rc, err := contextkit.Extract(md)
	if err != nil {
		t.Fatal(err)
	}
	return rc
}

func TestSpan_IsAChildOfTheCallersSpan(t *testing.T) {
	md := metadata{http.Header{}}
	md.Set(contextkit.HeaderTenantID, "acme")
	md.Set(contextkit.HeaderTraceparent, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	first, err := contextkit.Extract(md)
	if err != nil {
		t.Fatal(err)
	}
	if first.SpanID == (contextkit.SpanID{}) || first.SpanID == first.Traceparent.ParentID {
		t.Fatalf("what continues a trace has the span %x under %x", first.SpanID, first.Traceparent.ParentID)
	}
	ctx := contextkit.NewContext(t.Context(), first)
	second := hop(ctx, t)
	if second.Traceparent.ParentID != first.SpanID || second.TraceID != first.TraceID || second.Traceparent.Flags != first.Traceparent.Flags || second.SpanID == first.SpanID {
		t.Errorf("after %+v comes %+v", first, second)
	}
	if again := hop(ctx, t); again.Traceparent.ParentID != first.SpanID || again.SpanID == second.SpanID {
		t.Errorf("what is asked again is a child of %x with the span %x", again.Traceparent.ParentID, again.SpanID)
	}

	other := contextkit.SpanContext(ctx)
	own, _ := contextkit.FromContext(other)
	if own.Traceparent != first.Traceparent || own.SpanID == first.SpanID || own.CorrelationID != first.CorrelationID {
		t.Errorf("beside %+v stands %+v", first, own)
	}
	if third := hop(other, t); third.Traceparent.ParentID != own.SpanID {
		t.Errorf("what it asks is a child of %x, want %x", third.Traceparent.ParentID, own.SpanID)
	}
	if contextkit.SpanContext(t.Context()) != t.Context() {
		t.Error("without a context there is one")
	}
}

func TestSpan_NewTraceHasAFirstSpan(t *testing.T) {
	rc, err := contextkit.Extract(metadata{http.Header{}})
	if err != nil || rc.SpanID == (contextkit.SpanID{}) || rc.SpanID != rc.Traceparent.ParentID {
		t.Errorf("%+v, %v", rc, err)
	}
}
