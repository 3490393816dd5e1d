package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gateway/auth"
)

// Names in the tokens of a development platform.
const (
	devIssuer   = "headgate-dev"
	devAudience = "headgate"
)

// openDevIssuer opens the signing key of a development platform.
func openDevIssuer(data string) (*auth.Issuer, error) {
	return auth.OpenIssuer(filepath.Join(data, "dev-signing-key.json"), devIssuer, devAudience)
}

type tokenCommand struct {
	Data    string        `default:"./data" type:"path" help:"Data directory of the platform."`
	Subject string        `default:"developer" help:"Who the token is for."`
	Tenant  []string      `required:"" help:"Tenant to act for; * for all. Repeatable."`
	Right   []string      `required:"" help:"Right such as query.read or query.read:wallets*. Repeatable."`
	TTL     time.Duration `default:"1h" help:"How long the token is good for."`
}

// Run issues the token.
func (c *tokenCommand) Run() error {
	principal, err := principalOf(c.Subject, c.Tenant, c.Right)
	if err != nil {
		return err
	}
	issuer, err := openDevIssuer(c.Data)
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

// principalOf parses tenants ("*" for all) and rights.
func principalOf(subject string, tenants, rights []string) (*auth.Principal, error) {
	principal := &auth.Principal{Subject: subject}
	if len(tenants) == 1 && tenants[0] == "*" {
		principal.AnyTenant = true
	} else {
		var err error
		if principal.Tenants, err = chassis.ParseTenants(tenants); err != nil {
			return nil, err
		}
	}
	for _, text := range rights {
		right, err := auth.ParseRight(text)
		if err != nil {
			return nil, err
		}
		principal.Rights = append(principal.Rights, right)
	}
	return principal, nil
}
