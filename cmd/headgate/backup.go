package main

import (
	"context"
	"os"

	"github.com/headgate/headgate/internal/node"
)

// storeFlags select the platform whose streams are used.
type storeFlags struct {
	Config string `type:"existingfile" xor:"store" help:"File of settings of 'serve', of any role; its section 'nats' names the servers."`
	NKey   string `name:"nkey" type:"existingfile" help:"File with the seed of the NATS user to act as, such as backup.nk or setup.nk of 'nats-config', in place of the one in the settings."`
	Data   string `type:"path" xor:"store" help:"Data directory of 'dev', which must not be running."`
}

func (f storeFlags) store() node.Store {
	return node.Store{Config: f.Config, NKey: f.NKey, Data: f.Data}
}

type backupCommand struct {
	Dir string `arg:"" type:"path" help:"Directory of the backup; it must be absent or empty."`

	storeFlags
}

// Run takes a backup.
func (c *backupCommand) Run(ctx context.Context) error {
	return node.Backup(ctx, c.store(), c.Dir, os.Stdout, os.Stderr)
}

type restoreCommand struct {
	Dir     string `arg:"" type:"existingdir" help:"Directory of the backup."`
	Replace bool   `help:"Delete the platform's existing data first."`
	Check   bool   `help:"Check the backup's files, checksums and the versions of its events, and restore nothing."`

	storeFlags
}

// Run restores a backup, or checks one.
func (c *restoreCommand) Run(ctx context.Context) error {
	if c.Check {
		return node.CheckBackup(ctx, c.Dir, os.Stdout, os.Stderr)
	}
	return node.Restore(ctx, c.store(), c.Dir, c.Replace, os.Stdout, os.Stderr)
}
