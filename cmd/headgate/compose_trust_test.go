package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// grpcPermissionDenied is the code of PERMISSION_DENIED in grpc-status.
const grpcPermissionDenied = "7"

// methods are methods of each role, which a gateway may call, by its addresses.
var methods = map[string]string{
	"aggregate:8081":  "/aggregate.gateway.v1.CommandService/Submit",
	"aggregate:9081":  "/aggregate.gateway.v1.CommandService/Submit",
	"projection:8082": "/projection.gateway.v1.QueryService/Query",
	"projection:9082": "/projection.gateway.v1.QueryService/Query",
	"runner:8083":     "/runner.admin.v1.RunnerAdmin/Drain",
	"runner:9083":     "/runner.admin.v1.RunnerAdmin/Drain",
	"control:8085":    "/control.v1.TenantService/SuspendTenant",
	"control:9085":    "/control.v1.TenantService/SuspendTenant",
}

// certificate returns the files of the certificate that secrets.sh has made for a container.
func (c *composition) certificate(service string) tlsfiles.Files {
	dir := filepath.Join(c.dir, "secrets", "tls", service)
	return tlsfiles.Files{
		Cert: filepath.Join(dir, "tls.crt"),
		Key:  filepath.Join(dir, "tls.key"),
		CA:   filepath.Join(dir, "ca.crt"),
	}
}

// client returns a client's TLS configuration with the certificate of files; it trusts the composition's authority.
func (c *composition) client(t *testing.T, files tlsfiles.Files) *tls.Config {
	t.Helper()
	files.CA = c.certificate("gateway").CA
	material, err := tlsfiles.Open(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return material.Client("")
}

// call calls a method by gRPC without a message, and returns the code of the response.
func call(ctx context.Context, config *tls.Config, url string) (string, error) {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status"), errors.Join(err, res.Body.Close())
}

// refuses checks that nodes and NATS refuse clients without a certificate, with one of another authority, and with one
// of a role that may not call the method, or without a NATS user; and that certificates name what their clients call.
func (c *composition) refuses(ctx context.Context, t *testing.T) {
	t.Helper()
	foreign := tlstest.NewAuthority(t).IssueFor(t, t.TempDir(), "gateway", "gateway")
	for addr, method := range methods {
		url := "https://" + c.addrs[addr] + method
		for name, files := range map[string]tlsfiles.Files{"no certificate": {}, "another authority": foreign} {
			if code, err := call(ctx, c.client(t, files), url); err == nil {
				t.Errorf("%s with %s is answered: %s", addr, name, code)
			}
		}
		for _, role := range []string{"aggregate", "projection", "runner", "control", "nats", "nats-setup"} {
			code, err := call(ctx, c.client(t, c.certificate(role)), url)
			if err != nil || code != grpcPermissionDenied {
				t.Errorf("%s with the certificate of %s: code %q, %v", addr, role, code, err)
			}
		}
		if code, err := call(ctx, c.client(t, c.certificate("gateway")), url); err != nil ||
			code == "" || code == grpcPermissionDenied {
			t.Errorf("%s with the certificate of the gateway: code %q, %v", addr, code, err)
		}
		if _, err := call(ctx, nil, "http://"+c.addrs[addr]+method); err == nil {
			t.Errorf("%s answers without TLS", addr)
		}
	}
	user, err := nats.NkeyOptionFromSeed(filepath.Join(c.dir, "secrets", "nats", "nkeys", "setup.nk"))
	if err != nil {
		t.Fatal(err)
	}
	connect := func(options ...nats.Option) error {
		conn, err := nats.Connect("tls://"+c.addrs["nats:4222"], options...)
		if err == nil {
			conn.Close()
		}
		return err
	}
	for name, files := range map[string]tlsfiles.Files{"no certificate": {}, "another authority": foreign} {
		if connect(user, nats.Secure(c.client(t, files))) == nil {
			t.Errorf("NATS accepts a user with %s", name)
		}
	}
	own := c.client(t, c.certificate("projection"))
	if err := connect(nats.Secure(own)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("NATS with a certificate and no user: %v", err)
	}
	if err := connect(user, nats.Secure(own)); err != nil {
		t.Errorf("NATS with a certificate and a user: %v", err)
	}
	c.checkNames(t)
	// Each process exports when its certificates expire.
	for _, addr := range []string{
		"gateway:9090", "aggregate:9100", "projection:9100", "runner:9100", "control:9100",
	} {
		_, text, err := get(ctx, c.url(addr)+"/metrics")
		for _, file := range []string{"tls.crt", "ca.crt"} {
			if !regexp.MustCompile(`headgate_certificate_expires_timestamp_seconds\{file="[^"]*/tls/` + file +
				`",process="[a-z]+"\} [12]\.\d+e\+09`).MatchString(text) {
				t.Errorf("%s does not report when %s expires: %v", addr, file, err)
			}
		}
	}
}

// checkNames checks that each container's certificate has the name by which the settings name the container.
func (c *composition) checkNames(t *testing.T) {
	t.Helper()
	settings, err := os.ReadFile("../../deploy/compose/headgate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	settings = regexp.MustCompile(`(?m)^ *#.*`).ReplaceAll(settings, nil)
	for _, found := range address.FindAllSubmatch(settings, -1) {
		host := string(found[1])
		if _, known := c.file.Services[host]; !known {
			continue
		}
		named[host] = true
		checkCertificate(t, filepath.Dir(c.certificate(host).Cert), host, []string{host})
	}
	if len(named) != 6 {
		t.Errorf("the settings name %v", named)
	}
}
