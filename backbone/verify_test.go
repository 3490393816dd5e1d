package backbone_test

import (
	"os"
	"testing"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
)

// TestVerifyJournal_AcceptedLossIsNamedAndNoDamage removes the first block of a journal's files.
func TestVerifyJournal_AcceptedLossIsNamedAndNoDamage(t *testing.T) {
	t.Parallel()
	dir := wholeJournal(t)
	if err := os.Remove(natstest.Blocks(t, dir, backbone.StreamEvents)[0]); err != nil {
		t.Fatal(err)
	}
	js, _ := natstest.StartStop(t, dir)
	ctx := contextkit.PlatformContext(t.Context())
	before, err := backbone.VerifyJournal(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if before.Whole() || len(before.Gaps) != 1 || len(before.Accepted) != 0 || before.Damage == nil {
		t.Errorf("before it is accepted: %+v", before)
	}
	if _, err := backbone.AcceptLoss(ctx, js, "ada", "a disk"); err != nil {
		t.Fatal(err)
	}
	after, err := backbone.VerifyJournal(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if !after.Whole() || len(after.Accepted) != 1 || after.Accepted[0] != before.Gaps[0] || after.Events != before.Events {
		t.Errorf("once it is accepted: %+v", after)
	}
}
