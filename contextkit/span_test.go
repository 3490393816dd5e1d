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

// received returns the contract that a callee extracts from the metadata that ctx injects.
func received(ctx context.Context, t *testing.T) contextkit.RequestContext {
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
		t.Fatalf("a continued trace has the span %x under %x", first.SpanID, first.Traceparent.ParentID)
	}
	ctx := contextkit.NewContext(t.Context(), first)
	second := received(ctx, t)
	if second.Traceparent.ParentID != first.SpanID || second.TraceID != first.TraceID ||
		second.Traceparent.Flags != first.Traceparent.Flags || second.SpanID == first.SpanID {
		t.Errorf("the callee of %+v received %+v", first, second)
	}
	if again := received(ctx, t); again.Traceparent.ParentID != first.SpanID || again.SpanID == second.SpanID {
		t.Errorf("the second call is a child of %x with the span %x", again.Traceparent.ParentID, again.SpanID)
	}

	other := contextkit.SpanContext(ctx)
	own, _ := contextkit.FromContext(other)
	if own.Traceparent != first.Traceparent || own.SpanID == first.SpanID || own.CorrelationID != first.CorrelationID {
		t.Errorf("SpanContext of %+v is %+v", first, own)
	}
	if third := received(other, t); third.Traceparent.ParentID != own.SpanID {
		t.Errorf("its call is a child of %x, want %x", third.Traceparent.ParentID, own.SpanID)
	}
	if contextkit.SpanContext(t.Context()) != t.Context() {
		t.Error("SpanContext without a call adds a context")
	}
}

func TestSpan_NewTraceHasAFirstSpan(t *testing.T) {
	rc, err := contextkit.Extract(metadata{http.Header{}})
	if err != nil || rc.SpanID == (contextkit.SpanID{}) || rc.SpanID != rc.Traceparent.ParentID {
		t.Errorf("%+v, %v", rc, err)
	}
}
