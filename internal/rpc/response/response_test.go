package response_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/response"
)

func tenant(t *testing.T, name string) contextkit.TenantID {
	t.Helper()
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// values draws plain JSON values of some depth.
func values(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Int64().AsAny(), rapid.Float64().AsAny(),
		rapid.String().AsAny(),
		rapid.Map(rapid.IntRange(0, 20_000), func(n int) any { return strings.Repeat("x", n) }),
	}
	if depth > 0 {
		kinds = append(kinds,
			rapid.Map(rapid.SliceOfN(values(depth-1), 0, 5), func(v []any) any { return v }),
			rapid.Map(rapid.MapOfN(rapid.String(), values(depth-1), 0, 5), func(v map[string]any) any { return v }))
	}
	return rapid.OneOf(kinds...)
}

func TestSize_IsThatOfTheMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.MapOfN(rapid.String(), values(4), 0, 5).Draw(t, "members")
		message, err := structpb.NewStruct(members)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := response.Object(members), proto.Size(message); got != want {
			t.Fatalf("%d bytes, want %d", got, want)
		}
	})
}

func TestPage_HasAtLeastOneItem(t *testing.T) {
	page := response.Page{Bytes: 100}
	if !page.Add(1000) || page.Add(1) {
		t.Error("want a page of the one large item")
	}
	page = response.Page{Bytes: 100}
	if !page.Add(40) || !page.Add(50) || page.Add(10) || page.Used() > 100 {
		t.Errorf("want the items that fit; %d bytes are used", page.Used())
	}
}

func TestLimiter_OneTenantLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := response.NewLimiter(response.Config{PageBytes: 1 << 20, TenantBytes: 4 << 20, NodeBytes: 16 << 20})
		acme, globex := tenant(t, "acme"), tenant(t, "globex")
		call, end := context.WithCancel(t.Context())
		for range 4 {
			if err := l.Hold(call, acme, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Hold(call, acme, 1<<20); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("more than the tenant's share: %v", err)
		}
		if err := l.Admit(acme); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("a call that cannot be answered is begun: %v", err)
		}
		if err := l.Hold(call, acme, 1000); err != nil {
			t.Errorf("a small answer: %v", err)
		}
		if err := l.Hold(t.Context(), globex, 5<<20); err != nil {
			t.Errorf("another tenant: %v", err)
		}
		end()
		synctest.Wait()
		if err := l.Admit(acme); err != nil || l.Held() != 5<<20 {
			t.Errorf("after its calls have ended: %v, %d bytes are held", err, l.Held())
		}
	})
}

func TestLimiter_ANodeHasABound(t *testing.T) {
	l := response.NewLimiter(response.Config{PageBytes: 1 << 20, TenantBytes: 1 << 20, NodeBytes: 2 << 20})
	for _, name := range []string{"a", "b"} {
		if err := l.Hold(t.Context(), tenant(t, name), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Hold(t.Context(), tenant(t, "c"), 1<<20); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("%v, want RESOURCE_EXHAUSTED", err)
	}
}

func TestLimiter_AStreamWaitsForItsTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := response.NewLimiter(response.Config{PageBytes: 1 << 20, TenantBytes: 1 << 20, NodeBytes: 2 << 20})
		acme := tenant(t, "acme")
		release, err := l.Wait(t.Context(), acme, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		waiting, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		wait := func() {
			next, err := l.Wait(waiting, acme, 10)
			if err == nil {
				next()
			}
			done <- err
		}
		go wait()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a message beyond the bound does not wait: %v", err)
		default:
		}
		release()
		if err := <-done; err != nil {
			t.Errorf("once there is room: %v", err)
		}
		if release, err = l.Wait(t.Context(), acme, 1<<20); err != nil {
			t.Fatal(err)
		}
		defer release()
		go wait()
		synctest.Wait()
		cancel()
		if err := <-done; connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%v, want RESOURCE_EXHAUSTED", err)
		}
	})
}
