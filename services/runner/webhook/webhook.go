// Package webhook posts JSON to third-party servers with safeguards: only to allowed hosts, never to private
// addresses, with a timeout, a signature, and an idempotency key by which a receiver detects retries.
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

// Config configures the allowed webhooks. The zero value allows none.
type Config struct {
	// Allow are the hosts that may be called, such as "hooks.example.com" or "*.example.com".
	Allow []string `yaml:"allow"`
	// Private also allows addresses of private networks and of this machine.
	Private bool `yaml:"private"`
	// Plain allows http in addition to https.
	Plain bool `yaml:"plain"`
	// Timeout bounds a call. 0: 5 s.
	Timeout time.Duration `yaml:"timeout"`
	// Secret is the secret from which the secrets of hosts are derived ([HostSecret]), which sign the calls; nil:
	// calls are not signed.
	Secret []byte `yaml:"-"`
	// Transport wraps the transport of requests, for example to record them; nil: the transport is not wrapped.
	Transport func(http.RoundTripper) http.RoundTripper `yaml:"-"`
}

// Validate returns errors that name the invalid fields.
func (c Config) Validate() error {
	errs := []error{config.AtLeast("timeout", c.Timeout, 0)}
	for i, pattern := range c.Allow {
		if _, err := path.Match(pattern, "x"); err != nil || pattern == "" {
			errs = append(
				errs,
				config.Wrong(fmt.Sprintf("allow.%d", i), "%q is not a host such as hooks.example.com or *.example.com",
					pattern),
			)
		}
	}
	return errors.Join(errs...)
}

const (
	defaultTimeout = 5 * time.Second
	// maxAnswerBytes bounds the bytes that are read of a response.
	maxAnswerBytes = 64 << 10

	headerKey       = "Idempotency-Key"
	headerTimestamp = "X-Headgate-Timestamp"
	headerSignature = "X-Headgate-Signature"
)

// RefusedError reports that a retry cannot succeed: the target is not allowed, or the receiver refuses the call.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// Call is a webhook call.
type Call struct {
	// Source names the calling step. Each has separate breakers.
	Source string
	// Target is the URL, and Body the JSON to post.
	Target string
	Body   []byte
	// Key is the idempotency key, the same for every attempt.
	Key string
	// Repeated is set if an earlier attempt may have reached the receiver.
	Repeated bool
	// Trial is set if an operator requests the call: an open breaker does not hold it.
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
		// Check the resolved address, since a name may resolve to any address.
		dialer.Control = refusePrivate
	}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: c.Timeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        100,
		MaxIdleConnsPerHost: 8,
		MaxConnsPerHost:     32,
		IdleConnTimeout:     time.Minute,
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

// Close closes idle connections.
func (c *Caller) Close() { c.client.CloseIdleConnections() }

// Receivers returns the number of receivers whose breaker is open or half-open, and the number of calls that were not
// made since the start because of a breaker or a concurrency limit.
func (c *Caller) Receivers() (open int, held int64) { return c.receivers.counts() }

// Post makes a call for the tenant of ctx. A [*RefusedError] is permanent; after any other error another attempt may
// succeed, after a [*HeldError] or a [*RetryAfterError] at a later time.
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
		return &RefusedError{"the host resolves to a private address"}
	}
	if err != nil {
		return fmt.Errorf("webhook %s: %w", address.Host, shown(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswerBytes) // so that the connection can be reused
	return outcomeOf(res, address.Host, call.Repeated, time.Now())
}

// shown returns a call's error without the URL, whose query may be a secret, and without the address of the name
// server, since records, dead letters and logs contain the error.
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

// allowed parses a target and checks whether it may be called.
func (c *Caller) allowed(target string) (*url.URL, error) {
	address, err := url.Parse(target)
	if err != nil || address.Hostname() == "" || address.User != nil {
		return nil, &RefusedError{"the target is not a URL"}
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
