package webhook_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/services/runner/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a third-party server.
func receiver(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL
}

func post(t *testing.T, config webhook.Config, target string) error {
	t.Helper()
	caller := webhook.New(config)
	defer caller.Close()
	return caller.Post(contextkit.TenantContext(t.Context(), natstest.Tenant(t, "acme")),
		webhook.Call{Target: target, Body: []byte(`{"a":1}`), Key: "key-1"})
}

var local = webhook.Config{Allow: []string{"127.0.0.1"}, Private: true, Plain: true}

func TestPost_SignsAndCarriesKeyAndContext(t *testing.T) {
	var (
		header http.Header
		body   []byte
	)
	url := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
	})
	config := local
	config.Secret = []byte("secret")
	if err := post(t, config, url+"/a%2Fb?x=1"); err != nil {
		t.Fatal(err)
	}
	if string(body) != `{"a":1}` || header.Get("Idempotency-Key") != "key-1" ||
		header.Get("Content-Type") != "application/json" {
		t.Errorf("%s with %v", body, header)
	}
	signed := webhook.Signed{
		Method:    "POST",
		Host:      strings.TrimPrefix(url, "http://"),
		Path:      "/a%2Fb?x=1",
		Tenant:    "acme",
		Key:       "key-1",
		Timestamp: header.Get("X-Headgate-Timestamp"),
		Body:      body,
	}
	secret := []byte(webhook.HostSecret([]byte("secret"), "127.0.0.1"))
	if want := webhook.Sign(secret, signed); header.Get("X-Headgate-Signature") != want ||
		!strings.HasPrefix(want, "v2=") {
		t.Errorf("signature %q, want %q", header.Get("X-Headgate-Signature"), want)
	}
	if header.Get("X-Tenant-Id") != "acme" || len(header.Get("Traceparent")) != 55 ||
		header.Get("X-Correlation-Id") == "" {
		t.Errorf("the call lacks the context headers: %v", header)
	}
	caller := webhook.New(local)
	defer caller.Close()
	if err := caller.Post(
		context.Background(), webhook.Call{Target: url, Key: "k"},
	); !errors.Is(err, contextkit.ErrNoContext) {
		t.Errorf("without context: %v", err)
	}
}

func TestPost_StatusDeterminesRetry(t *testing.T) {
	for status, refused := range map[int]bool{
		200: false, 204: false, 400: true, 404: true, 410: true, 302: true, 408: false, 409: true, 425: false,
		429: false, 500: false, 503: false,
	} {
		url := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
		})
		err := post(t, local, url)
		var refusal *webhook.RefusedError
		if got := errors.As(err, &refusal); got != refused || (err == nil) != (status < 300) {
			t.Errorf("%d: %v", status, err)
		}
	}
	slow := local
	slow.Timeout = 50 * time.Millisecond
	release := make(chan struct{})
	url := receiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	err := post(t, slow, url)
	close(release)
	var refusal *webhook.RefusedError
	if err == nil || errors.As(err, &refusal) {
		t.Errorf("a receiver that does not answer: %v", err)
	}
}

// Records, dead letters and logs contain the error of a call.
func TestPost_ErrorOmitsURLAndNameServer(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	unknown := local
	unknown.Transport = func(http.RoundTripper) http.RoundTripper {
		return failing{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
			Err:        "no such host",
			Name:       "127.0.0.1",
			Server:     "10.9.8.7:53",
			IsNotFound: true,
		}}}
	}
	for name, config := range map[string]webhook.Config{"refused": local, "no such host": unknown} {
		err := post(t, config, closed.URL+"/path-secret?token=query-secret")
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "10.9.8.7") ||
			!strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is a transport whose requests fail.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

func TestPost_DisallowedTargetIsNotCalled(t *testing.T) {
	url := receiver(t, func(http.ResponseWriter, *http.Request) { t.Error("the target was called") })
	port := url[strings.LastIndex(url, ":"):]
	https := webhook.Config{Allow: []string{"*.example.com", "127.0.0.1"}}
	public := webhook.Config{Allow: []string{"*"}, Plain: true}
	for name, rule := range map[string]struct {
		config webhook.Config
		target string
		want   string
	}{
		"empty allow list":           {webhook.Config{Plain: true, Private: true}, url, "is not allowed"},
		"other host":                 {https, "https://example.org/", "is not allowed"},
		"host with the same suffix":  {https, "https://badexample.com/", "is not allowed"},
		"http":                       {https, url, `the scheme "http" is not allowed`},
		"other scheme":               {public, "file:///etc/passwd", "not a URL"},
		"a user":                     {public, "http://root@127.0.0.1" + port, "not a URL"},
		"not a URL":                  {public, "::", "not a URL"},
		"this machine":               {public, url, "private address"},
		"this machine by name":       {public, "http://localhost" + port, "private address"},
		"this machine in IPv6":       {public, "http://[::ffff:127.0.0.1]" + port, "private address"},
		"whole loopback network":     {public, "http://0.0.0.0" + port, "private address"},
		"a private network":          {public, "http://10.0.0.1/", "private address"},
		"another":                    {public, "http://192.168.1.1/", "private address"},
		"a cloud's metadata":         {public, "http://169.254.169.254/latest/meta-data/", "private address"},
		"a carrier's network":        {public, "http://100.64.0.1/", "private address"},
		"a unique local IPv6":        {public, "http://[fd00::1]/", "private address"},
		"an IPv4 address by 6to4":    {public, "http://[2002:7f00:1::1]/", "private address"},
		"an IPv4-compatible address": {public, "http://[::7f00:1]/", "private address"},
		"a translated address":       {public, "http://[64:ff9b:1::7f00:1]/", "private address"},
		"a site-local IPv6":          {public, "http://[fec0::1]/", "private address"},
		"a link-local IPv6":          {public, "http://[fe80::1%25lo]/", "private address"},
		"a Teredo address":           {public, "http://[2001:0:7f00:1::1]/", "private address"},
		"a discarded IPv6":           {public, "http://[100::1]/", "private address"},
		"a segment of a route":       {public, "http://[5f00::1]/", "private address"},
		"a documentation IPv6":       {public, "http://[2001:db8::1]/", "private address"},
		"another documentation IPv6": {public, "http://[3fff::1]/", "private address"},
		"this network":               {public, "http://0.1.2.3/", "private address"},
		"protocol assignments":       {public, "http://192.0.0.8/", "private address"},
		"documentation":              {public, "http://192.0.2.1/", "private address"},
		"a relay of 6to4":            {public, "http://192.88.99.1/", "private address"},
		"benchmarks":                 {public, "http://198.19.0.1/", "private address"},
		"a reserved address":         {public, "http://240.0.0.1/", "private address"},
		"everybody":                  {public, "http://255.255.255.255/", "private address"},
		"an IPv4 address by NAT64":   {public, "http://[64:ff9b::7f00:1]/", "private address"},
		"a decimal of this machine": {
			public, "http://2130706433" + port, "",
		}, // a name that does not exist; resolvers that parse it meet the check above
	} {
		err := post(t, rule.config, rule.target)
		var refusal *webhook.RefusedError
		if err == nil || rule.want != "" && (!errors.As(err, &refusal) || !strings.Contains(err.Error(), rule.want)) {
			t.Errorf("%s: %v, want %q", name, err, rule.want)
		}
	}
}
