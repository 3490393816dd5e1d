package fairqueue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/headgate/headgate/internal/fairqueue"
)

// drain takes all that waits.
func drain(q *fairqueue.Queue[string]) (values []string) {
	for item, ok := q.TryTake(); ok; item, ok = q.TryTake() {
		q.Release(item)
		values = append(values, item.Value)
	}
	return values
}

func TestQueue_AccountsAreServedInTurn(t *testing.T) {
	q := fairqueue.New[string](fairqueue.Bounds{Items: 100, Bytes: 1000})
	for i := range 3 {
		q.Add("a", 1, fmt.Sprint("a", i))
	}
	q.Add("b", 1, "b0")
	q.Add("c", 1, "c0")
	if got, want := drain(q), []string{"a0", "b0", "c0", "a1", "a2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestQueue_AFullQueueMakesRoomAtTheLargestAccountsExpense(t *testing.T) {
	for name, bounds := range map[string]fairqueue.Bounds{
		"items": {Items: 10, Bytes: 1 << 20}, "bytes": {Items: 1000, Bytes: 100},
	} {
		t.Run(name, func(t *testing.T) {
			q := fairqueue.New[string](bounds)
			var lost []string
			for i := range 50 {
				lost = append(lost, q.Add("flood", 10, fmt.Sprint("flood", i))...)
			}
			if len(lost) != 40 || lost[0] != "flood10" {
				t.Fatalf("%d are displaced, the first %v; want its 40 newest", len(lost), lost[0])
			}
			for i := range 3 {
				if got := q.Add("quiet", 10, fmt.Sprint("quiet", i)); len(got) != 1 ||
					got[0] != fmt.Sprint("flood", 9-i) {
					t.Errorf("%v makes room, want the newest of the flood", got)
				}
			}
			if got := q.Add("flood", 10, "more"); len(got) != 1 || got[0] != "more" {
				t.Errorf("the flood displaces %v", got)
			}
			values := drain(q)
			for i := range 3 {
				if !slices.Contains(values, fmt.Sprint("quiet", i)) {
					t.Errorf("quiet%d is lost: %v", i, values)
				}
			}
			if stats := q.Stats(); stats != (fairqueue.Stats{}) {
				t.Errorf("an empty queue has %+v", stats)
			}
		})
	}
}

func TestQueue_TakenItemsCountUntilReleased(t *testing.T) {
	q := fairqueue.New[string](fairqueue.Bounds{Items: 2, Bytes: 100})
	q.Add("a", 10, "first")
	item, err := q.Take(t.Context())
	if err != nil || item.Value != "first" {
		t.Fatal(item, err)
	}
	q.Add("a", 10, "second")
	if got := q.Add("a", 10, "third"); len(got) != 1 || got[0] != "third" {
		t.Errorf("displaced %v, want the third", got)
	}
	if got := q.Add("b", 90, "large"); len(got) != 1 || got[0] != "large" {
		t.Errorf("displaced %v, want the one that is larger than what the others have", got)
	}
	q.Release(item)
	if got := q.Add("a", 10, "third"); len(got) != 0 {
		t.Errorf("displaced %v although there is room", got)
	}
	if stats := q.Stats(); stats.Items != 2 || stats.Bytes != 20 || stats.Waiting != 2 || stats.Oldest.IsZero() {
		t.Errorf("%+v", stats)
	}
}

func TestQueue_TakeWaitsForAnItemOrTheContextsEnd(t *testing.T) {
	q := fairqueue.New[string](fairqueue.Bounds{Items: 2, Bytes: 100})
	taken := make(chan string)
	go func() {
		item, _ := q.Take(t.Context())
		taken <- item.Value
	}()
	q.Add("a", 1, "x")
	if got := <-taken; got != "x" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestQueue_AnItemThatDoesNotWaitAllocatesNothing(t *testing.T) {
	q := fairqueue.New[string](fairqueue.Bounds{Items: 100, Bytes: 1000})
	if n := testing.AllocsPerRun(100, func() {
		q.Add("a", 1, "x")
		if item, ok := q.TryTake(); ok {
			q.Release(item)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The queue holds what a plain list of lists would.
func TestQueue_KeepsEveryItemThroughAnyMix(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	q := fairqueue.New[string](fairqueue.Bounds{Items: 1000, Bytes: 1 << 20})
	waiting, next := map[string][]string{}, 0
	for range 20_000 {
		if random.IntN(2) == 0 {
			name, value := string(rune('a'+random.IntN(5))), fmt.Sprint(next)
			next++
			if lost := q.Add(name, 1, name+value); len(lost) > 0 {
				t.Fatalf("%v is displaced", lost)
			}
			waiting[name] = append(waiting[name], name+value)
		} else if item, ok := q.TryTake(); ok {
			name := item.Value[:1]
			if waiting[name][0] != item.Value {
				t.Fatalf("%s comes before %s", item.Value, waiting[name][0])
			}
			waiting[name] = waiting[name][1:]
			q.Release(item)
		}
	}
	left := 0
	for _, values := range waiting {
		left += len(values)
	}
	if stats := q.Stats(); stats.Waiting != left || stats.Items != left || stats.Bytes != left {
		t.Errorf("%+v, want %d", stats, left)
	}
}
