package aggregate

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/headgate/headgate/backbone"
)

// folded is an instance after commands of today, each with a key and one event.
func folded(commands int) *instance {
	i := newInstance()
	i.newest = time.Now()
	for n := range commands {
		i.remember(backbone.Event{Sequence: uint64(10 * (n + 1)), Command: backbone.CommandRef{IdempotencyKey: fmt.Sprintf("key-%d", n), Fingerprint: "f"}})
	}
	return i
}

func TestAnswersFallIntoPagesInTheOrderOfTheJournal(t *testing.T) {
	key := aggregateKey{aggregateType: "wallet", id: "w"}
	for _, test := range []struct{ commands, recent, pages, unkept int }{
		{0, 0, 0, 0}, {128, 128, 0, 0}, {129, 128, 1, 0}, {128 + 63, 128, 1, 0}, {128 + 64, 128, 1, 1}, {128 + 65, 128, 2, 1},
		{128 + 64*70 + 1, 128, 71, 70},
	} {
		i := folded(test.commands)
		if i.recent.Len() != test.recent || len(i.pages) != test.pages || len(i.unkept) != test.unkept {
			t.Errorf("%d commands: %d recent ones, %d pages, %d not kept: want %v", test.commands, i.recent.Len(), len(i.pages), len(i.unkept), test)
		}
		for at, p := range i.pages[:max(len(i.pages)-1, 0)] {
			first := 64 * at
			if name, _ := p.record(key); name != fmt.Sprintf(".wallet.w.%d-64", 10*(first+1)) {
				t.Fatalf("%d commands: page %d is %q", test.commands, at, name)
			}
			for n := range 64 {
				name := fmt.Sprintf("key-%d", first+n)
				if !p.has(hashOf(name)) || p.answers[name].FirstSequence != uint64(10*(first+n+1)) {
					t.Fatalf("%d commands: page %d does not have %s", test.commands, at, name)
				}
			}
		}
	}
}

func TestAPageIsTheSameAfterASnapshot(t *testing.T) {
	i := folded(128 + 64 + 10)
	i.pages[0].answers = nil // in the bucket
	for n, p := range i.pages {
		data, err := json.Marshal(p.keep())
		if err != nil {
			t.Fatal(err)
		}
		var kept keptPage
		if err := json.Unmarshal(data, &kept); err != nil {
			t.Fatal(err)
		}
		got, ok := kept.page()
		if diff := cmp.Diff(p, got, cmp.AllowUnexported(page{}, answer{})); diff != "" || !ok {
			t.Errorf("page %d: %v, %s", n, ok, diff)
		}
	}
}
