package main_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kubectl is a program that stores the secrets that it is to create as directories below $SECRETS.
const kubectl = `#!/usr/bin/env bash
set -euo pipefail
case "$*" in
"-n headgate create secret generic "*)
	name=$6
	mkdir -p "$SECRETS/$name"
	for arg in "${@:7}"; do
		case "$arg" in
		--from-file=*=*) file=${arg#--from-file=} && cp "${file#*=}" "$SECRETS/$name/${file%%=*}" ;;
		--from-file=*) cp "${arg#--from-file=}" "$SECRETS/$name/" ;;
		esac
	done ;;
"apply -f -") cat >/dev/null ;;
esac
`

// kubernetesSecrets runs secrets.sh and returns the directory of its secrets, by name and key.
func kubernetesSecrets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectl), 0o700); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(dir, "applied")
	script := exec.CommandContext(t.Context(), "bash", "../../deploy/kubernetes/secrets.sh", filepath.Join(dir, "made"))
	script.Env = append(os.Environ(), "HEADGATE="+binary, "SECRETS="+secrets, "HOSTS=api.example.com",
		"PATH="+dir+":"+os.Getenv("PATH"))
	if output, err := script.CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v: %s", err, output)
	}
	return secrets
}

// Each role starts with the secrets that its pods mount: the files that the settings name are there, and certificates
// have the role, and the names by which others reach it.
func TestKubernetes_SecretsFitTheSettings(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a process per role")
	}
	secrets := kubernetesSecrets(t)
	text, err := os.ReadFile("../../deploy/kubernetes/headgate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for role, names := range map[string][]string{
		"gateway":    {"gateway-1.gateways", "gateway", "gateway.headgate.svc.cluster.local", "api.example.com"},
		"aggregate":  {"aggregate-1.aggregate"},
		"projection": {"projection-2.projection"},
		"runner":     {"runner-1.runner"},
		"control":    {"control-1.control"},
		"nats":       {"nats", "nats-0.nats", "nats-2.nats"},
		"nats-setup": nil,
		"postgres":   {"postgres"},
	} {
		checkCertificate(t, filepath.Join(secrets, "tls-"+role), role, names)
		if len(names) == 0 || role == "nats" || role == "postgres" {
			continue
		}
		settings := filepath.Join(t.TempDir(), "headgate.yaml")
		mounted := strings.NewReplacer("/etc/headgate/secrets", filepath.Join(secrets, role),
			"/etc/headgate/nats", filepath.Join(secrets, "nats-"+role),
			"/etc/headgate/tls", filepath.Join(secrets, "tls-"+role)).Replace(string(text))
		if err := os.WriteFile(settings, []byte(mounted), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), binary, "serve", role, "--config", settings, "--check")
		cmd.Env = append(os.Environ(), "POD_NAME="+role+"-0", "VIEWS_PASSWORD=secret")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s", role, output)
		}
	}
	if keys, err := filepath.Glob(filepath.Join(secrets, "*", "ca.key")); err != nil || len(keys) > 0 {
		t.Errorf("the authority's key is in the cluster: %v %v", keys, err)
	}
}

// checkCertificate checks that a secret has the certificate of a role with names.
func checkCertificate(t *testing.T, secret, role string, names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(secret, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	authorities, err := os.ReadFile(filepath.Join(secret, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorities)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		options := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}
		if _, err := cert.Verify(options); err != nil {
			t.Errorf("%s: %v", secret, err)
		}
	}
	for _, name := range names {
		if err := cert.VerifyHostname(name); err != nil {
			t.Errorf("%s: %v", secret, err)
		}
	}
	if want := "spiffe://headgate/role/" + role; len(cert.URIs) != 1 || cert.URIs[0].String() != want {
		t.Errorf("%s has %v, want %s", secret, cert.URIs, want)
	}
}
