// Command headgate is the platform in one binary: a gateway for HTTP/JSON,
// gRPC, gRPC-Web and Connect in front of event-sourced, multi-tenant services.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the command line.
type cli struct {
	Dev        devCommand        `cmd:"" help:"Run the whole platform in this process, on embedded NATS and SQLite."`
	Serve      serveCommand      `cmd:"" help:"Run one role in this process, on an external NATS."`
	Backup     backupCommand     `cmd:"" help:"Copy a platform's streams and buckets to a directory, while it runs."`
	Restore    restoreCommand    `cmd:"" help:"Copy a backup to NATS servers without nodes, and compare the result with it."`
	Journal    journalCommand    `cmd:"" help:"Verify the journal, and accept losses."`
	NATSConfig natsConfigCommand `cmd:"" name:"nats-config" help:"Print the configuration of NATS servers with a user per node, and the users' credentials."`
	NATSSetup  natsSetupCommand  `cmd:"" name:"nats-setup" help:"Create and update the streams, buckets and secrets, as the only NATS user with that permission."`
	Certs      certsCommand      `cmd:"" help:"Issue the certificates of a platform's processes, under a local authority."`
	Config     configCommand     `cmd:"" help:"Print every setting of 'serve' with an explanation."`
	Token      tokenCommand      `cmd:"" help:"Issue a token that the platform of 'dev' accepts."`
	Keys       keysCommand       `cmd:"" help:"Print the public keys of the tokens that 'token' issues, for 'serve'."`
	APIKey     apiKeyCommand     `cmd:"" name:"apikey" help:"Create an API key, and print it with its entry for the file of API keys."`
	Webhook    webhookCommand    `cmd:"" name:"webhook-secret" help:"Print the secret that signs webhooks to a host."`
	Model      modelCommand      `cmd:"" help:"Work on domain models."`
	Version    versionCommand    `cmd:"" help:"Print the release and its source revision."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed := kong.Parse(&cli{}, kong.Name("headgate"), kong.UsageOnError(),
		kong.Description("A Connect, gRPC and JSON gateway for a multi-tenant, event-sourced platform."))
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.FatalIfErrorf(parsed.Run())
}
