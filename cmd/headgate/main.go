// Command headgate is the platform in one binary: a gateway for HTTP/JSON,
// gRPC, gRPC-Web and Connect in front of event-sourced, multi-tenant services.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/headgate/headgate/internal/fastpath/gctuning"
)

// cli is the command line.
type cli struct {
	Dev        devCommand        `cmd:"" help:"Run the whole platform in this process, on embedded NATS and SQLite."`
	Serve      serveCommand      `cmd:"" help:"Run one role in this process, on an external NATS."`
	Backup     backupCommand     `cmd:"" help:"Copy a platform's streams and buckets to a directory, while it runs."`
	Restore    restoreCommand    `cmd:"" help:"Copy a backup to NATS servers without nodes, and compare the result with it."`
	Journal    journalCommand    `cmd:"" help:"Verify the journal, and accept losses."`
	NATSConfig natsConfigCommand `cmd:"" name:"nats-config" help:"Print the configuration of NATS servers with a user per node, and the users' credentials."`
	NATSSetup  natsSetupCommand  `cmd:"" name:"nats-setup" help:"Create and update the streams, buckets and secrets, as the one NATS user that may."`
	Config     configCommand     `cmd:"" help:"Print every setting of 'serve', explained."`
	Token      tokenCommand      `cmd:"" help:"Issue a token that the platform of 'dev' accepts."`
	Keys       keysCommand       `cmd:"" help:"Print the public keys of the tokens that 'token' issues, for 'serve'."`
	APIKey     apiKeyCommand     `cmd:"" name:"apikey" help:"Make an API key and the entry to keep of it."`
	Webhook    webhookCommand    `cmd:"" name:"webhook-secret" help:"Print the secret that webhooks to a host are signed with."`
	Model      modelCommand      `cmd:"" help:"Work on domain models."`
	Version    versionCommand    `cmd:"" help:"Print which release this is, and what it was built from."`
}

// memProfileRate is the bytes allocated for each allocation whose stack is noted for
// the heap's profile. At Go's default, four times as often, walking the stacks takes a
// hundredth of a busy gateway's time.
const memProfileRate = 2 << 20

func main() {
	runtime.MemProfileRate = memProfileRate
	gctuning.Adapt()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed := kong.Parse(&cli{}, kong.Name("headgate"), kong.UsageOnError(),
		kong.Description("A Connect, gRPC and JSON gateway for a multi-tenant, event-sourced platform."))
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.FatalIfErrorf(parsed.Run())
}
