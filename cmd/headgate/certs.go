package main

import (
	"os"
	"time"

	"github.com/headgate/headgate/internal/certs"
)

type certsCommand struct {
	Dir     string        `arg:"" type:"path" help:"Directory to write the files to: ca.crt and ca.key of the authority, and NAME/tls.crt, tls.key and ca.crt. Certificates that are there are retained while they are valid."`
	Name    []string      `required:"" sep:"none" help:"Role, or another server such as nats, with the DNS names and IP addresses under which it is reached. Repeatable." placeholder:"ROLE=HOST,HOST"`
	Domain  string        `default:"headgate" help:"Trust domain of the roles: a certificate has the URI spiffe://DOMAIN/role/ROLE."`
	TTL     time.Duration `default:"8760h" help:"How long certificates are valid. A repeated call renews those past two thirds of it."`
	Renew   bool          `help:"Issue all certificates again."`
	NewCA   bool          `name:"new-authority" help:"Make a new authority beside the former one, which stays trusted. The next call issues all certificates under it: distribute ca.crt first."`
	OneOnly bool          `name:"forget-authorities" help:"Trust the newest authority alone, once all processes have certificates of it."`
}

// Run issues certificates.
func (c *certsCommand) Run() error {
	return certs.Issue(certs.Config{
		Dir:               c.Dir,
		Names:             c.Name,
		Domain:            c.Domain,
		TTL:               c.TTL,
		Renew:             c.Renew,
		NewAuthority:      c.NewCA,
		ForgetAuthorities: c.OneOnly,
	}, os.Stdout)
}
