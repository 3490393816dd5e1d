package main

import (
	"context"
	"errors"
	"os"

	"github.com/headgate/headgate/internal/node"
)

// exitDamaged is the exit code of 'journal verify' when the journal is not whole.
const exitDamaged = 3

type journalCommand struct {
	Verify     verifyJournalCommand `cmd:"" help:"Read the whole journal and print what is missing. Exit code 3: something is missing."`
	AcceptLoss acceptLossCommand    `cmd:"" help:"Accept the known loss of the journal's events, so that commands are accepted again."`
}

type verifyJournalCommand struct{ storeFlags }

// Run verifies a journal.
func (c *verifyJournalCommand) Run(ctx context.Context) error {
	err := node.VerifyJournal(ctx, c.store(), os.Stdout)
	if errors.Is(err, node.ErrDamaged) {
		return exitError{err, exitDamaged}
	}
	return err
}

type acceptLossCommand struct {
	Gateway    string `default:"http://127.0.0.1:8080" help:"URL of a gateway."`
	Credential string `required:"" type:"existingfile" help:"File of a token or API key with the right fleet.admin for the platform."`
	Reason     string `required:"" help:"Why the loss is accepted, for the audit record."`
}

// Run accepts a loss.
func (c *acceptLossCommand) Run(ctx context.Context) error {
	return node.AcceptLoss(ctx, c.Gateway, c.Credential, c.Reason, os.Stdout)
}
