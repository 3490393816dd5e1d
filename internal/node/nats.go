package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/natsclient"
)

// natsSettings are how a process connects to NATS.
type natsSettings struct {
	URL      string `yaml:"url"`
	Replicas int    `yaml:"replicas"`
	Synced   bool   `yaml:"synced"`
	// NKey is the file of the seed of the process's user, in which "{role}" stands for the role, and
	// Credentials that of a user whose account is in a JWT. At most one of them is set.
	NKey        string    `yaml:"nkey"`
	Credentials string    `yaml:"credentials"`
	TLS         clientTLS `yaml:"tls"`
}

// as returns the settings of a process of a role.
func (n natsSettings) as(role access.Role) natsSettings {
	n.NKey = strings.ReplaceAll(n.NKey, "{role}", string(role))
	return n
}

// check checks the settings and the files that they name.
func (n natsSettings) check() error {
	var errs []error
	if n.URL == "" {
		errs = append(errs, config.Wrong("url", "is missing"))
	}
	if n.NKey != "" && n.Credentials != "" {
		errs = append(errs, config.Wrong("nkey", "is set beside credentials: a process has one of them"))
	}
	_, err := n.options(zerolog.Nop())
	return errors.Join(append(errs, err, config.AtLeast("replicas", n.Replicas, 1))...)
}

// options returns the options of connections: the user with a separate inbox prefix, and TLS
// with the files as they are when a connection begins.
func (n natsSettings) options(log zerolog.Logger) ([]nats.Option, error) {
	var options []nats.Option
	switch {
	case n.NKey != "":
		option, err := nats.NkeyOptionFromSeed(n.NKey)
		if err != nil {
			return nil, config.Wrong("nkey", "%s has no seed of a NATS user: %v", n.NKey, err)
		}
		var chosen nats.Options
		if err := option(&chosen); err != nil {
			return nil, config.Wrong("nkey", "%v", err)
		}
		options = append(options, option, nats.CustomInboxPrefix(access.InboxPrefix(chosen.Nkey)))
	case n.Credentials != "":
		options = append(options, nats.UserCredentials(n.Credentials))
	}
	if n.TLS == (clientTLS{}) {
		return options, nil
	}
	material, err := openTLS(n.TLS.Files, log)
	if err != nil {
		return nil, config.Wrong("tls", "%v", err)
	}
	options = append(options, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: n.TLS.ServerName}))
	if n.TLS.CA != "" || n.TLS.Cert != "" {
		certificate := func() (tls.Certificate, error) {
			if own := material.Client("").Certificates; len(own) > 0 {
				return own[0], nil
			}
			return tls.Certificate{}, nil
		}
		roots := func() (*x509.CertPool, error) { //nolint:unparam // a callback of nats.go
			return material.Client("").RootCAs, nil
		}
		if n.TLS.Cert == "" {
			options = append(options, func(o *nats.Options) error { o.RootCAsCB = roots; return nil })
		} else {
			options = append(options, nats.ClientTLSConfig(certificate, roots))
		}
	}
	return options, nil
}

// connect connects to NATS under a name. denied receives what the server refuses the user.
func (n natsSettings) connect(name string, denied func(error), log zerolog.Logger) (*nats.Conn, error) {
	options, err := n.options(log)
	if err != nil {
		return nil, config.Inside("nats", err)
	}
	options = append(options, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			denied(err)
		}
	}))
	conn, err := natsclient.Connect(n.URL, name, options...)
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return nil, awayError{
			"NATS refuses the credential",
			fmt.Errorf(
				"nats: %w: give the process a user of the server ('headgate nats-config' makes them) by nats.nkey", err,
			),
		}
	case err != nil:
		return nil, ifAway(fmt.Errorf("nats.url: %w", err), "NATS does not accept a connection")
	}
	return conn, nil
}

// denials ends an attempt to start in which the NATS server refuses the process's user a subject. Its
// methods may be called concurrently.
type denials struct {
	mu     sync.Mutex
	cancel context.CancelCauseFunc // nil: no attempt runs
}

// errDenied is the error of an attempt to start during which the NATS server refuses a subject.
var errDenied = errors.New("the NATS user lacks a permission")

// refusedSubject finds the subject in the server's error.
var refusedSubject = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// add receives an error of the connection.
func (d *denials) add(err error) {
	what := err.Error()
	if found := refusedSubject.FindStringSubmatch(what); found != nil {
		what = map[bool]string{true: "publish to ", false: "subscribe to "}[strings.EqualFold(found[1], "publish")] +
			found[2]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel(
			fmt.Errorf(
				"%w: it may not %s: make the servers' configuration again with 'headgate nats-config' of this "+
					"version, and check that nats.nkey and node.id belong to the same node",
				errDenied, what,
			),
		)
	}
}

// during returns ctx, which ends with an error that wraps [errDenied] when a subject is refused
// before done is called.
func (d *denials) during(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	d.mu.Lock()
	d.cancel = cancel
	d.mu.Unlock()
	return ctx, func() {
		d.mu.Lock()
		d.cancel = nil
		d.mu.Unlock()
		cancel(nil)
	}
}
