package main_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// composeFile is what a test needs of compose.yaml. tools/deploy reads it with compose's own library.
type composeFile struct {
	Services map[string]struct {
		Command, Volumes []string
		Secrets          []composeSecret
	}
	Secrets map[string]struct{ File string }
}

// composeSecret is a secret that a container mounts below /run/secrets.
type composeSecret struct{ Source, Target string }

// UnmarshalYAML reads the short form, a name, and the long one.
func (s *composeSecret) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		s.Source, s.Target = node.Value, node.Value
		return nil
	}
	type long composeSecret
	return node.Decode((*long)(s))
}

// composition runs the processes of compose.yaml on this machine: with its commands, settings and permissions at
// NATS, and for each container the files alone that it mounts.
type composition struct {
	dir   string // a copy of deploy/compose, with its secrets
	file  composeFile
	addrs map[string]string // by the address in the files, NAME:PORT
}

// hosts are the names in secrets.sh of a container's certificate.
var hosts = regexp.MustCompile(`--name ([a-z]+)=[a-z]+`)

// newComposition copies deploy/compose and makes its secrets. The certificates are for this machine's address too,
// where the processes run.
func newComposition(t *testing.T) *composition {
	t.Helper()
	c := &composition{dir: t.TempDir(), addrs: map[string]string{}}
	for _, name := range []string{"compose.yaml", "headgate.yaml", "secrets.sh"} {
		text, err := os.ReadFile("../../deploy/compose/" + name)
		if name == "secrets.sh" {
			text = hosts.ReplaceAll(text, []byte("$0,127.0.0.1"))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(c.dir, name), text, 0o700)
		}
		if err == nil && name == "compose.yaml" {
			err = yaml.Unmarshal(text, &c.file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.secrets(t)
	return c
}

// secrets runs secrets.sh.
func (c *composition) secrets(t *testing.T, args ...string) string {
	t.Helper()
	script := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(c.dir, "secrets.sh")}, args...)...)
	script.Env = append(os.Environ(), "HEADGATE="+binary)
	output, err := script.CombinedOutput()
	if err != nil {
		t.Fatalf("secrets.sh: %v: %s", err, output)
	}
	return strings.TrimSpace(string(output))
}

// address is an address in a file of a container: of itself, or of another by its name.
var address = regexp.MustCompile(`\b(0\.0\.0\.0|127\.0\.0\.1|[a-z]+):(\d{4})\b`)

// translate replaces the addresses in a container's file by those of this machine.
func (c *composition) translate(t *testing.T, service, text string) string {
	t.Helper()
	return address.ReplaceAllStringFunc(text, func(found string) string {
		host, port, _ := strings.Cut(found, ":")
		if host == "0.0.0.0" || host == "127.0.0.1" {
			host = service
		}
		if _, known := c.file.Services[host]; !known {
			return found
		}
		key := host + ":" + port
		if c.addrs[key] == "" {
			c.addrs[key] = freePort(t)
		}
		return c.addrs[key]
	})
}

// container makes the directory of a container with the files that it mounts, and returns the arguments of its
// command.
func (c *composition) container(t *testing.T, service string) []string {
	t.Helper()
	root := filepath.Join(c.dir, "containers", service)
	inside := func(path string) string { return filepath.Join(root, path) }
	s := c.file.Services[service]
	paths := []string{"/run/secrets", "/etc/headgate/tls", "/etc/nats/tls", "/var/lib/headgate", "/data"}
	replace := strings.NewReplacer("/run/secrets", inside("/run/secrets"), "/etc/headgate", inside("/etc/headgate"),
		"/etc/nats", inside("/etc/nats"), "/var/lib/headgate", inside("/var/lib/headgate"),
		`"/data"`, `"`+inside("/data")+`"`)
	for _, path := range paths {
		if err := os.MkdirAll(inside(path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	copyFile := func(from, to string) {
		text, err := os.ReadFile(filepath.Join(c.dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if ext := path.Ext(to); ext == ".yaml" || ext == ".conf" {
			text = []byte(replace.Replace(c.translate(t, service, string(text))))
		}
		if err := os.WriteFile(inside(to), text, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	for _, secret := range s.Secrets {
		copyFile(c.file.Secrets[secret.Source].File, "/run/secrets/"+secret.Target)
	}
	for _, volume := range s.Volumes {
		from, to, _ := strings.Cut(volume, ":")
		if !strings.HasPrefix(from, "./") {
			continue
		}
		to = strings.TrimSuffix(to, ":ro")
		files, err := os.ReadDir(filepath.Join(c.dir, from))
		if err != nil { // it is a file
			copyFile(from, to)
		}
		for _, file := range files {
			copyFile(filepath.Join(from, file.Name()), filepath.Join(to, file.Name()))
		}
	}
	args := make([]string, len(s.Command))
	for i, arg := range s.Command {
		args[i] = replace.Replace(arg)
	}
	return args
}

// url returns the URL of an address in the files, for operators.
func (c *composition) url(addr string) string { return "http://" + c.addrs[addr] }

// The processes of compose.yaml, with the settings, the secrets and the permissions that it gives them, run the tour
// of the README.
func TestCompose_RunsTheTour(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a process per role; other tests cover this under the race detector")
	}
	nats, err := natsBinary()
	if err != nil {
		t.Fatal(err)
	}
	c := newComposition(t)
	server := &process{path: nats, ready: "Server is ready", args: c.container(t, "nats")}
	server.start(t)
	t.Cleanup(func() {
		for line := range strings.Lines(server.log()) {
			if strings.Contains(line, "Violation") {
				t.Errorf("a role lacks a permission: %s", line)
			}
		}
	})
	headgate(t, c.container(t, "nats-setup")...)
	roles := []string{"aggregate", "projection", "control", "gateway", "runner"}
	processes := map[string]*process{}
	for _, role := range roles {
		processes[role] = &process{path: binary, ready: "listens on", args: c.container(t, role)}
		processes[role].start(t)
	}
	p := &platform{
		gateway: "https://" + c.addrs["gateway:8080"],
		runner:  c.url("runner:9100"), // its other address asks for a certificate
		tokens:  map[string]string{},
		ca:      filepath.Join(c.dir, "secrets", "tls", "ca.crt"),
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := eventually(ctx, "all nodes serve", func() (bool, error) {
		_, body := ready(ctx, t, c.url("gateway:9090"))
		return body.Status == "ready" && len(body.Degraded) == 0, nil
	}); err != nil {
		t.Fatalf("%v\n%s", err, processes["gateway"].log())
	}
	application := []string{
		"--right", "command.submit", "--right", "query.read", "--right", "aggregate.read", "--right", "workflow.read",
	}
	operator := []string{
		"--right", "fleet.read", "--right", "fleet.admin", "--right", "audit.read", "--right", "runner.admin",
	}
	for name, args := range map[string][]string{
		"ACME":     append([]string{"--subject", "acme-app", "--tenant", "acme"}, application...),
		"GLOBEX":   append([]string{"--subject", "globex-app", "--tenant", "globex"}, application...),
		"OPERATOR": append(append([]string{"--subject", "operator", "--tenant", "*"}, application...), operator...),
	} {
		p.tokens[name] = c.secrets(t, append([]string{"token"}, args...)...)
	}
	tour := examples(t, "../../README.md", "console")
	for i := range tour { // the nodes of dev have a number
		for role := range maps.Keys(processes) {
			tour[i].want = strings.ReplaceAll(tour[i].want, `"`+role+`-1"`, `"`+role+`"`)
		}
	}
	p.check(t, tour)
	c.refuses(ctx, t)
	slices.Reverse(roles)
	for _, role := range roles {
		processes[role].stop(t)
	}
}
