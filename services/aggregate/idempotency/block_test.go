package idempotency

import (
	"fmt"
	"testing"
)

func TestLog_AnswersMoveToBlocksInJournalOrder(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ commands, newest, blocks, pending int }{
		{0, 0, 0, 0}, {128, 128, 0, 0}, {129, 128, 1, 0}, {128 + 63, 128, 1, 0}, {128 + 64, 128, 1, 1},
		{128 + 65, 128, 2, 1},
		{128 + 64*70 + 1, 128, 71, 70},
	} {
		l := newLogs(t, newMemory()).New(wallet)
		recordAll(l, 0, test.commands)
		if l.newest.Len() != test.newest || len(l.blocks) != test.blocks || l.Pending() != test.pending {
			t.Errorf("%d commands: %d newest, %d blocks, %d pending: want %v", test.commands, l.newest.Len(),
				len(l.blocks), l.Pending(), test)
		}
		for at, b := range l.blocks[:max(len(l.blocks)-1, 0)] {
			first := 64 * at
			if name, _ := b.encode(wallet); name != fmt.Sprintf("acme.wallet.w.%d-64", 10*(first+1)) {
				t.Fatalf("%d commands: block %d is %q", test.commands, at, name)
			}
			for n := range 64 {
				key := fmt.Sprintf("key-%d", first+n)
				if !b.has(hashOf(key)) ||
					b.answers[key].FirstSequence != uint64(10*(first+n+1)) {
					t.Fatalf("%d commands: block %d does not have %s", test.commands, at, key)
				}
			}
		}
	}
}
