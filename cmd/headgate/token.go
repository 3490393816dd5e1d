package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/node"
)

type tokenCommand struct {
	Data    string        `default:"./data" type:"path" help:"Data directory of the platform."`
	Subject string        `default:"developer" help:"Subject of the token."`
	Tenant  []string      `required:"" help:"Tenant to act for; * for all. Repeatable."`
	Right   []string      `required:"" help:"Right such as query.read, query.read:wallets* or command.submit:transfer.request. Repeatable."`
	Model   string        `type:"existingfile" help:"Model to check the rights against: one that matches nothing in it is a warning."`
	TTL     time.Duration `default:"1h" help:"Lifetime of the token."`
}

// Run issues the token.
func (c *tokenCommand) Run() error {
	principal, err := auth.NewPrincipal(c.Subject, c.Tenant, c.Right)
	if err != nil {
		return err
	}
	if err := warnOfRights(c.Model, principal.Rights); err != nil {
		return err
	}
	issuer, err := node.OpenDevIssuer(c.Data)
	if err != nil {
		return err
	}
	token, err := issuer.Issue(principal, c.TTL)
	if err != nil {
		return err
	}
	fmt.Println(token)
	return nil
}

type keysCommand struct {
	Data string `default:"./data" type:"path" help:"Data directory of the platform."`
}

// Run prints the public keys of the tokens that 'token' issues.
func (c *keysCommand) Run() error {
	issuer, err := node.OpenDevIssuer(c.Data)
	if err != nil {
		return err
	}
	keys, err := issuer.PublicKeys()
	if err != nil {
		return err
	}
	fmt.Println(string(keys))
	return nil
}

type apiKeyCommand struct {
	ID     string        `arg:"" help:"Name of the key: lower-case letters, digits and hyphens."`
	Tenant []string      `required:"" help:"Tenant to act for; * for all. Repeatable."`
	Right  []string      `required:"" help:"Right such as query.read, query.read:wallets* or command.submit:transfer.request. Repeatable."`
	Model  string        `type:"existingfile" help:"Model to check the rights against: one that matches nothing in it is a warning."`
	TTL    time.Duration `help:"Lifetime of the key. Default: no expiry."`
}

// Run makes the key: the holder's part to standard output, the entry to store to
// standard error.
func (c *apiKeyCommand) Run() error {
	var expires time.Time
	if c.TTL != 0 {
		expires = time.Now().Add(c.TTL).UTC().Truncate(time.Second)
	}
	key, kept, err := auth.NewAPIKey(c.ID, c.Tenant, c.Right, expires)
	if err != nil {
		return err
	}
	principal, err := auth.NewPrincipal(c.ID, c.Tenant, c.Right)
	if err != nil {
		return err
	}
	if err := warnOfRights(c.Model, principal.Rights); err != nil {
		return err
	}
	entry, err := yaml.Marshal([]auth.APIKey{kept})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "# add this to the file that --api-keys names:\n%s", entry)
	fmt.Println(key)
	return nil
}

// warnOfRights writes to standard error which rights match nothing in the model of a file; "": there
// is none.
func warnOfRights(file string, rights []auth.Right) error {
	if file == "" {
		return nil
	}
	unmatched, err := node.UnmatchedRights(context.Background(), file, rights)
	for _, right := range unmatched {
		fmt.Fprintf(os.Stderr, "warning: the right %q matches nothing in the model %s\n", right, file)
	}
	return err
}

type webhookCommand struct {
	Host string `arg:"" help:"Host of the receiver, such as hooks.example.com."`
	Data string `default:"./data" type:"path" help:"Data directory of the platform."`
	File string `type:"path" help:"File that the runner's settings name (webhooks.secret), in place of a platform's data directory."`
}

// Run prints the host's secret, for its receiver.
func (c *webhookCommand) Run() error {
	secret, err := node.HostWebhookSecret(c.Data, c.File, c.Host)
	if err != nil {
		return err
	}
	fmt.Println(secret)
	return nil
}
