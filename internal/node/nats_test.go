package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// userFiles writes the files of 'nats-config', with one user per kind, for a server with the files
// of TLS.
func userFiles(t *testing.T, cert, key, ca string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := access.Write(access.Config{
		Dir:    dir,
		Listen: "127.0.0.1:-1",
		Store:  filepath.Join(dir, "store"),
		Cert:   cert,
		Key:    key,
		CA:     ca,
	}, io.Discard); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startUsers starts the server of a directory of userFiles at the role's address.
func (r *role) startUsers(t *testing.T, dir string) *server.Server {
	t.Helper()
	options, err := server.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return r.startNATS(t, *options)
}

// settingsOf writes a file of settings of the role's NATS server.
func (r *role) settingsOf(t *testing.T, dir, further string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "setup.yaml")
	if err := os.WriteFile(
		path,
		fmt.Appendf(nil, "nats: {url: \"nats://%s\", nkey: %q%s}\n", r.nats, filepath.Join(dir, "nkeys", "{role}.nk"),
			further),
		0o600,
	); err != nil {
		t.Fatal(err)
	}
	return path
}

// setUp sets up NATS without output.
func setUp(t *testing.T, c NATSSetup) error {
	t.Helper()
	return SetUpNATS(t.Context(), c, io.Discard, io.Discard)
}

// The set-up waits for servers that start later, and logs for which; a refused user ends it.
func TestSetUpNATS_WaitsForTheServers(t *testing.T) {
	t.Parallel()
	dir := userFiles(t, "", "", "")
	r := &role{nats: closedPort(t)}
	c := NATSSetup{Settings: r.settingsOf(t, dir, "")}
	want := "127.0.0.1:" + strings.TrimPrefix(r.nats, "127.0.0.1:")
	if err := setUp(t, c); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without a wait: %v", err)
	}
	c.Wait = time.Minute
	logs, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := SetUpNATS(t.Context(), c, io.Discard, writer)
		ended <- errors.Join(err, writer.Close())
	}()
	lines := bufio.NewScanner(logs)
	if !lines.Scan() || !strings.Contains(lines.Text(), "waiting for NATS at "+want+": NATS does not accept") {
		t.Errorf("it writes %q", lines.Text())
	}
	r.startUsers(t, dir)
	for lines.Scan() {
		t.Log(lines.Text())
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	other := userFiles(t, "", "", "") // whose users the server does not know
	c.Settings = r.settingsOf(t, other, "")
	if err := setUp(t, c); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("as an unknown user: %v", err)
	}
}

// A role with a NATS user creates nothing: it waits for the set-up and reports it.
func TestStart_WaitsForTheSetUp(t *testing.T) {
	t.Parallel()
	dir := userFiles(t, "", "", "")
	r := startRoleWith(t, "aggregate", fmt.Sprintf(", nkey: %q", filepath.Join(dir, "nkeys", "{role}.nk")))
	r.startUsers(t, dir)
	line := r.until(t, "the start waits: streams are not set up")
	for _, want := range []string{"EVENTS is missing", "KV_secrets is missing", "headgate nats-setup"} {
		if !strings.Contains(line, want) {
			t.Errorf("want %q: %s", want, line)
		}
	}
	if status, text := r.get(t, r.main, "/ready"); status != http.StatusServiceUnavailable ||
		!strings.Contains(text, "streams are not set up") {
		t.Errorf("%d %s", status, text)
	}
	if err := setUp(t, NATSSetup{
		Settings: r.settingsOf(t, dir, ""),
		NKey:     filepath.Join(dir, "nkeys", "control.nk"),
	}); !errors.Is(err, errDenied) {
		t.Errorf("as control: %v", err)
	}
	for range 2 { // it may be repeated
		if err := setUp(t, NATSSetup{Settings: r.settingsOf(t, dir, "")}); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "listens on")
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// A permission that a user lacks is named, in place of a timeout.
func TestStart_NamesThePermissionThatIsMissing(t *testing.T) {
	t.Parallel()
	for name, missing := range map[string]string{
		"projection": "$JS.API.CONSUMER.CREATE.KV_tenants.>",
		"control":    "$JS.API.STREAM.LIST",
		"aggregate":  "$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.tokens",
	} {
		t.Run(name, func(t *testing.T) {
			dir := userFiles(t, "", "", "")
			users, err := os.ReadFile(filepath.Join(dir, access.UsersFile))
			if err != nil {
				t.Fatal(err)
			}
			before, own, found := strings.Cut(string(users), "# "+name+"\n")
			if !found {
				t.Fatal("there is no such user")
			}
			if own = strings.Replace(
				own, fmt.Sprintf("%q", missing), `"other"`, 1,
			); os.WriteFile(filepath.Join(dir, access.UsersFile), []byte(before+own), 0o600) != nil {
				t.Fatal("the users cannot be written")
			}
			r := startRoleWith(t, name, fmt.Sprintf(", nkey: %q", filepath.Join(dir, "nkeys", "{role}.nk")))
			r.startUsers(t, dir)
			if err := setUp(t, NATSSetup{Settings: r.settingsOf(t, dir, "")}); err != nil {
				t.Fatal(err)
			}
			line := r.until(t, "the start waits: the NATS user lacks a permission")
			if want := strings.TrimSuffix(missing, ".>"); !strings.Contains(line, "publish to "+want) ||
				!strings.Contains(line, "nats-config") {
				t.Errorf("want %q: %s", want, line)
			}
			if status, text := r.get(t, r.main, "/ready"); status != http.StatusServiceUnavailable ||
				!strings.Contains(text, "lacks a permission") || strings.Contains(text, "$JS") {
				t.Errorf("%d %s", status, text)
			}
			if err := r.end(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// A running node reports that NATS refuses it a subject, such as its announcement under another id.
func TestReady_NamesAMissingPermissionOfARunningNode(t *testing.T) {
	t.Parallel()
	dir := userFiles(t, "", "", "")
	users, err := os.ReadFile(filepath.Join(dir, access.UsersFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(
		filepath.Join(dir, access.UsersFile),
		bytes.ReplaceAll(users, []byte("$KV.nodes.control.>"), []byte("$KV.nodes.control.other")), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	r := startRoleWith(t, "control", fmt.Sprintf(", nkey: %q", filepath.Join(dir, "nkeys", "{role}.nk")))
	r.startUsers(t, dir)
	if err := setUp(t, NATSSetup{Settings: r.settingsOf(t, dir, "")}); err != nil {
		t.Fatal(err)
	}
	if line := r.until(t, "NATS refuses the process's user a subject"); !strings.Contains(line, "$KV.nodes.control.") {
		t.Error(line)
	}
	// Its announcements are not acknowledged; that is no full disk.
	if line := r.until(t, `"stream":"KV_nodes"`); !strings.Contains(line, "may not publish to the stream KV_nodes") ||
		!strings.Contains(line, `"subject":"$KV.nodes.control.`) || strings.Contains(line, "disk") {
		t.Error(line)
	}
	for t.Context().Err() == nil { // it is ready a moment later
		status, text := r.get(t, r.main, "/ready")
		if status == http.StatusOK {
			if !strings.Contains(text, `"permission":"NATS refuses`) || strings.Contains(text, "$KV") {
				t.Errorf("%d %s", status, text)
			}
			break
		}
	}
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// A server with users refuses a process without one, which reports what is missing.
func TestStart_NamesARefusedCredential(t *testing.T) {
	t.Parallel()
	dir := userFiles(t, "", "", "")
	r := startRole(t, "control")
	r.startUsers(t, dir)
	if line := r.until(t, "NATS refuses the credential"); !strings.Contains(line, "nats.nkey") {
		t.Error(line)
	}
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// Connections to NATS use TLS with certificates of both sides.
func TestStart_ConnectsToNATSOverMutualTLS(t *testing.T) {
	t.Parallel()
	authority, stranger := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	files, other := authority.Issue(t, t.TempDir(), "nats"), stranger.Issue(t, t.TempDir(), "nats")
	dir := userFiles(t, files.Cert, files.Key, files.CA)
	tls := func(cert, key, ca string) string {
		return fmt.Sprintf(", tls: {cert: %q, key: %q, ca: %q}", cert, key, ca)
	}
	nkey := fmt.Sprintf(", nkey: %q", filepath.Join(dir, "nkeys", "{role}.nk"))
	r := startRoleWith(t, "control", nkey+tls(files.Cert, files.Key, files.CA))
	r.startUsers(t, dir)
	if err := setUp(t, NATSSetup{Settings: r.settingsOf(t, dir, tls(files.Cert, files.Key, files.CA))}); err != nil {
		t.Fatal(err)
	}
	r.until(t, "listens on")
	for what, further := range map[string]string{
		"no certificate":                          "",
		"certificate of another authority":        tls(other.Cert, other.Key, files.CA),
		"server certificate of another authority": tls(files.Cert, files.Key, other.CA),
		"the server's authority alone":            tls("", "", files.CA),
		"other server name": strings.TrimSuffix(tls(files.Cert, files.Key, files.CA), "}") +
			", server_name: other}",
	} {
		if err := setUp(t, NATSSetup{Settings: r.settingsOf(t, dir, further)}); err == nil {
			t.Errorf("%s: the certificate is accepted", what)
		}
	}
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// A node's metrics are at the address for operators alone, if it has one.
func TestServe_MetricsHaveAPortOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := startRoleWith(t, "projection", ownAdmin)
	r.until(t, "the start waits")
	var bus *server.Server
	for range 2 { // while it waits, and when it serves
		for path, want := range map[string]int{"/metrics": http.StatusOK, "/health": http.StatusOK} {
			if status, text := r.get(t, r.admin, path); status != want ||
				path == "/metrics" && !strings.Contains(text, "headgate_nats_connected") {
				t.Errorf("admin %s: %d", path, status)
			}
		}
		if status, text := r.get(t, r.main, "/metrics"); status == http.StatusOK {
			t.Errorf("main /metrics: %d %s", status, text)
		}
		if status, _ := r.get(t, r.main, "/health"); status != http.StatusOK {
			t.Errorf("main /health: %d", status)
		}
		if bus == nil {
			bus = r.startNATS(t, server.Options{})
			r.until(t, "for operators: http://"+r.admin)
		}
	}
	if status, _ := r.get(t, r.admin, "/ready"); status != http.StatusOK {
		t.Errorf("admin /ready: %d", status)
	}
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}
