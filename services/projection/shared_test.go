package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc/response"
)

// reader reads rows whose only member is the sequence that they are of.
type reader struct {
	reads atomic.Int64
	now   atomic.Uint64
	fail  error
}

func (r *reader) read(_ context.Context, keys []string, _ response.Page) (map[string]sharedRow, uint64, int, error) {
	r.reads.Add(1)
	if r.fail != nil {
		return nil, 0, 0, r.fail
	}
	now := r.now.Load()
	rows := map[string]sharedRow{}
	for _, key := range keys {
		if key == "gone" {
			continue
		}
		row, err := structpb.NewStruct(map[string]any{"of": float64(now)})
		if err != nil {
			return nil, 0, 0, err
		}
		rows[key] = sharedRow{row: row, size: proto.Size(row)}
	}
	return rows, now, len(keys), nil
}

// page has space for all rows of these tests.
func page() *response.Page { return &response.Page{Bytes: 1 << 20} }

// rowsOf returns the rows of changes by key.
func rowsOf(changes []*projectionv1.Change) map[string]*structpb.Struct {
	out := map[string]*structpb.Struct{}
	for _, change := range changes {
		out[change.GetKey()] = change.GetRow()
	}
	return out
}

func TestSharedRows_ReadsEachChangeOnce(t *testing.T) {
	shared, source := (&sharedRows{}).plan("v", "", nil), &reader{}
	keys := []string{"a", "gone"}
	for sequence := uint64(1); sequence <= 3; sequence++ {
		source.now.Store(sequence)
		changed := map[string]uint64{"a": sequence, "gone": sequence}
		var watchers sync.WaitGroup
		for range 100 {
			watchers.Go(func() {
				changes, err := shared.find(t.Context(), keys, changed, page(), source.read)
				found := rowsOf(changes)
				if err != nil || found["gone"] != nil ||
					uint64(found["a"].GetFields()["of"].GetNumberValue()) != sequence {
					t.Errorf("%v, %v; want the changes of %d", found, err, sequence)
				}
			})
		}
		watchers.Wait()
		if reads := source.reads.Load(); reads != int64(sequence) {
			t.Fatalf("%d reads of %d changes", reads, sequence)
		}
	}
	// A watcher that has yet to send an older change sends the current row.
	changes, err := shared.find(t.Context(), keys[:1], map[string]uint64{"a": 1}, page(), source.read)
	if found := rowsOf(changes); err != nil || found["a"].GetFields()["of"].GetNumberValue() != 3 ||
		source.reads.Load() != 3 {
		t.Errorf("%v, %v after %d reads", found, err, source.reads.Load())
	}
}

func TestSharedRows_FailedReadDoesNotAffectOtherWatchers(t *testing.T) {
	shared, source := (&sharedRows{}).plan("v", "", nil), &reader{fail: errors.New("no disk")}
	changed := map[string]uint64{"a": 1}
	if _, err := shared.find(t.Context(), []string{"a"}, changed, page(), source.read); !errors.Is(err, source.fail) {
		t.Fatal(err)
	}
	source.fail = nil
	source.now.Store(1)
	if found, err := shared.find(t.Context(), []string{"a"}, changed, page(), source.read); err != nil ||
		rowsOf(found)["a"] == nil {
		t.Fatal(found, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	shared.turn <- struct{}{} // a watcher is reading
	cancel()
	if _, err := shared.find(ended, []string{"a"}, changed, page(), source.read); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSharedRows_ArePerPlanAndBounded(t *testing.T) {
	all := &sharedRows{}
	plans := []*planRows{
		all.plan("v", "", nil), all.plan("v", "a > 1", nil), all.plan("v", "", []string{"a"}), all.plan("w", "", nil),
	}
	for i, p := range plans {
		if slices.Index(plans, p) != i {
			t.Errorf("plan %d is shared with another", i)
		}
	}
	if all.plan("v", "", nil) != plans[0] {
		t.Error("equal plans are not shared")
	}
	for n := range 2 * sharedPlans {
		all.plan(fmt.Sprint(n), "", nil)
	}
	source := &reader{}
	for n := range 2 * sharedPerPlan {
		if _, err := plans[0].find(t.Context(), []string{fmt.Sprint(n)}, nil, page(), source.read); err != nil {
			t.Fatal(err)
		}
	}
	if all.plans.Len() != sharedPlans || plans[0].rows.Len() != sharedPerPlan {
		t.Errorf("%d plans and %d rows are cached", all.plans.Len(), plans[0].rows.Len())
	}
}
