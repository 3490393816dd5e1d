// Package webhook posts JSON to other people's servers, carefully: to hosts that
// were allowed, never to private addresses, within a time, signed, and under an
// idempotency key, so that a receiver can tell a repetition.
package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
)

// Config says where webhooks may go. The zero value lets none out.
type Config struct {
	// Allow are the hosts that may be called, such as "hooks.example.com" or
	// "*.example.com".
	Allow []string `yaml:"allow"`
	// Private allows addresses of private networks and of this machine too.
	Private bool `yaml:"private"`
	// Plain allows http beside https.
	Plain bool `yaml:"plain"`
	// Timeout bounds a call. 0: 5 s.
	Timeout time.Duration `yaml:"timeout"`
	// Secret is what the secrets of hosts are derived from ([HostSecret]), which calls are signed
	// with; nil: they are not signed.
	Secret []byte `yaml:"-"`
	// Transport wraps the transport of requests, for example to record them; nil: the
	// transport is not wrapped.
	Transport func(http.RoundTripper) http.RoundTripper `yaml:"-"`
}

// Validate names the fields that cannot be used.
func (c Config) Validate() error {
	errs := []error{config.AtLeast("timeout", c.Timeout, 0)}
	for i, pattern := range c.Allow {
		if _, err := path.Match(pattern, "x"); err != nil || pattern == "" {
			errs = append(errs, config.Wrong(fmt.Sprintf("allow.%d", i), "%q is no host such as hooks.example.com or *.example.com", pattern))
		}
	}
	return errors.Join(errs...)
}

const (
	defaultTimeout = 5 * time.Second
	// maxAnswerBytes bounds what is read of an answer.
	maxAnswerBytes = 64 << 10

	headerKey       = "Idempotency-Key"
	headerTimestamp = "X-Headgate-Timestamp"
	headerSignature = "X-Headgate-Signature"
)

// RefusedError says that a call will never be answered well: its target is not
// allowed, or the receiver does not want it.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// Call is a webhook to post.
type Call struct {
	// Source names the step that calls: each has breakers of its own.
	Source string
	// Target is the URL, and Body the JSON that is posted.
	Target string
	Body   []byte
	// Key is the idempotency key: the same for every attempt.
	Key string
	// Repeated says that an earlier attempt may have reached the receiver.
	Repeated bool
	// Trial says that an operator asks for the call: an open breaker does not hold it.
	Trial bool
}

// Caller posts webhooks. It may be used concurrently.
type Caller struct {
	config    Config
	client    *http.Client
	receivers receivers
}

// New returns a caller.
func New(c Config) *Caller {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	dialer := &net.Dialer{Timeout: c.Timeout}
	if !c.Private {
		// Looked at when the name has been resolved: a name may lead anywhere.
		dialer.Control = refusePrivate
	}
	transport := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: c.Timeout, ForceAttemptHTTP2: true,
		MaxIdleConns: 100, MaxIdleConnsPerHost: 8, MaxConnsPerHost: 32, IdleConnTimeout: time.Minute,
	}
	return &Caller{config: c, client: &http.Client{
		Transport: c.transport(contextkit.HTTPTransport(transport)), Timeout: c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// transport returns the transport of requests.
func (c Config) transport(sends http.RoundTripper) http.RoundTripper {
	if c.Transport == nil {
		return sends
	}
	return c.Transport(sends)
}

// Close ends idle connections.
func (c *Caller) Close() { c.client.CloseIdleConnections() }

// Receivers returns the number of receivers whose breaker does not admit every call, and that of
// calls that were not made since the start, because of a breaker or for lack of places.
func (c *Caller) Receivers() (open int, held int64) { return c.receivers.counts() }

// Post makes a call for the tenant of ctx. A [*RefusedError] is for good; after any other error
// another attempt may succeed, after a [*HeldError] or a [*RetryAfterError] at a later time.
func (c *Caller) Post(ctx context.Context, call Call) error {
	address, err := c.allowed(call.Target)
	if err != nil {
		return err
	}
	rc, ok := contextkit.FromContext(ctx)
	if !ok {
		return contextkit.ErrNoContext
	}
	end, err := c.receivers.acquire(ctx, rc.TenantID, receiverKey{call.Source, address.Host}, call.Trial)
	if err != nil {
		return err
	}
	result := failed
	defer func() { end(result, err) }()
	err = c.post(ctx, rc.TenantID, address, call)
	var refused *RefusedError
	switch {
	case err == nil, errors.As(err, &refused):
		result = succeeded
	case errors.Is(ctx.Err(), context.Canceled):
		result = abandoned
	}
	return err
}

func (c *Caller) post(ctx context.Context, tenant contextkit.TenantID, address *url.URL, call Call) error {
	body := call.Body
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), bytes.NewReader(body))
	if err != nil {
		return &RefusedError{"the URL cannot be called"}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(headerKey, call.Key)
	if c.config.Secret != nil {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		req.Header.Set(headerTimestamp, now)
		req.Header.Set(headerSignature, Sign([]byte(HostSecret(c.config.Secret, address.Hostname())), Signed{
			Method:    req.Method,
			Host:      address.Host,
			Path:      requestTarget(address),
			Tenant:    tenant.String(),
			Key:       call.Key,
			Timestamp: now,
			Body:      body,
		}))
	}
	res, err := c.client.Do(req)
	if errors.Is(err, errPrivate) {
		return &RefusedError{"the host leads to a private address"}
	}
	if err != nil {
		return fmt.Errorf("webhook %s: %w", address.Host, shown(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswerBytes) // so that the connection can be used again
	return outcomeOf(res, address.Host, call.Repeated, time.Now())
}

// shown returns a call's error without what its text must not have, which records, dead letters and
// logs show: the URL, whose query may be a secret, and the address of the name server.
func shown(err error) error {
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		public := *lookup
		public.Server = ""
		return &public
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return sent.Err
	}
	return err
}

// allowed parses a target and looks whether it may be called.
func (c *Caller) allowed(target string) (*url.URL, error) {
	address, err := url.Parse(target)
	if err != nil || address.Hostname() == "" || address.User != nil {
		return nil, &RefusedError{"the target is no URL"}
	}
	if address.Scheme != "https" && (!c.config.Plain || address.Scheme != "http") {
		return nil, &RefusedError{fmt.Sprintf("the scheme %q is not allowed", address.Scheme)}
	}
	for _, pattern := range c.config.Allow {
		if ok, err := path.Match(pattern, address.Hostname()); err == nil && ok {
			return address, nil
		}
	}
	return nil, &RefusedError{fmt.Sprintf("the host %q is not allowed", address.Hostname())}
}
