package journal_test

import (
	"os"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// TestVerifyJournal_AcceptedLossIsNamedAndNoDamage removes the first block of a journal's files.
func TestVerifyJournal_AcceptedLossIsNamedAndNoDamage(t *testing.T) {
	t.Parallel()
	dir := wholeJournal(t)
	if err := os.Remove(natstest.Blocks(t, dir, streams.Events)[0]); err != nil {
		t.Fatal(err)
	}
	js, _ := natstest.StartStop(t, dir)
	ctx := contextkit.PlatformContext(t.Context())
	before, err := journal.Verify(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if before.Whole() || len(before.Gaps) != 1 || len(before.Accepted) != 0 || before.Damage == nil {
		t.Errorf("before the acceptance: %+v", before)
	}
	if _, err := journal.AcceptLoss(ctx, js, "ada", "a disk"); err != nil {
		t.Fatal(err)
	}
	after, err := journal.Verify(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if !after.Whole() || len(after.Accepted) != 1 || after.Accepted[0] != before.Gaps[0] ||
		after.Events != before.Events {
		t.Errorf("after the acceptance: %+v", after)
	}
}
