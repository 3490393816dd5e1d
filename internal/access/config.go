package access

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/streams"
)

// Config describes NATS servers and the nodes that use them.
type Config struct {
	// Dir is the directory of the files; "": they are printed, with new seeds.
	Dir string
	// Nodes are KIND=ID; KIND=* is one user of all nodes of the kind. Default: KIND=* of the
	// platform's kinds.
	Nodes []string
	// Servers are the hosts of a cluster's servers; at most one of a server alone.
	Servers []string
	// Listen and Monitor are the addresses for clients and for health checks.
	Listen, Monitor string
	// Store is the directory of the streams.
	Store string
	// Cert, Key and CA are paths on the servers; "": no TLS, or no certificates of clients.
	Cert, Key, CA string
	// Name is the name of each server, such as a variable ($POD_NAME) of its environment. All servers
	// then have the same file, nats.conf. Default: its host.
	Name string
	// Open adds the user [OpenUser] with all permissions and a password ([OpenPasswordFile]), for processes that have
	// no user yet.
	Open bool
}

const (
	// clusterPort is where the servers of a cluster reach each other.
	clusterPort = "6222"
	// passwordFile and seedsDir are in the directory.
	passwordFile = "cluster.password"
	seedsDir     = "nkeys"
	// OpenUser has all permissions: processes use it while a running platform is given users, or they are taken from
	// it.
	OpenUser = "open"
	// OpenPasswordFile has the password of OpenUser, which a server without users ignores.
	OpenPasswordFile = "open.password"
	// UsersFile has the users, and is included by each server's configuration.
	UsersFile = "users.conf"
)

// file is a file that Write writes.
type file struct {
	name    string
	content string
}

// Write writes the servers' configuration (nats.conf, or nats-1.conf and so on of a cluster), the
// users ([UsersFile]) and their seeds (nkeys/NAME.nk, readable by their owner alone) to the
// directory, or prints them all to out. Seeds and the cluster's password that are in the directory
// are retained, so that it can be repeated with further nodes. Error: a node is not valid, or a file
// cannot be read or written.
func Write(c Config, out io.Writer) error {
	users, err := users(c.Nodes)
	if err != nil {
		return err
	}
	if (c.Cert == "") != (c.Key == "") || c.CA != "" && c.Cert == "" {
		return errors.New("a certificate needs its key, and an authority needs both")
	}
	if len(c.Servers) == 2 {
		return errors.New(
			"two servers are no cluster: when one is unreachable, the other stores nothing; name one, three or five",
		)
	}
	var files []file
	for n := range users {
		seed, err := c.seed(users[n].Name())
		if err != nil {
			return err
		}
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(seed)))
		if err != nil {
			return fmt.Errorf("%s: %w", users[n].Name(), err)
		}
		if users[n].Key, err = pair.PublicKey(); err != nil {
			return err
		}
		files = append(files, file{filepath.Join(seedsDir, users[n].Name()+".nk"), seed})
	}
	open := ""
	if c.Open {
		if open, err = c.read(OpenPasswordFile, rand.Text); err != nil {
			return err
		}
		files = append(files, file{OpenPasswordFile, open})
	}
	text, err := UsersConfig(users, strings.TrimSpace(open))
	if err != nil {
		return err
	}
	password := ""
	if len(c.Servers) > 1 {
		if password, err = c.read(passwordFile, rand.Text); err != nil {
			return err
		}
		files = append(files, file{passwordFile, password})
	}
	servers := max(len(c.Servers), 1)
	if c.Name != "" {
		servers = 1
	}
	for n := range servers {
		name := "nats.conf"
		if servers > 1 {
			name = fmt.Sprintf("nats-%d.conf", n+1)
		}
		files = append(files, file{name, c.server(n, strings.TrimSpace(password))})
	}
	return c.save(append(files, file{UsersFile, text}), out)
}

// users returns the set-up and backup users and those of nodes.
func users(nodes []string) ([]User, error) {
	if len(nodes) == 0 {
		for _, kind := range contextkit.PlatformKinds() {
			nodes = append(nodes, kind.String()+"="+AnyID)
		}
	}
	users := []User{{Role: Setup}, {Role: Backup}}
	taken := map[string]bool{users[0].Name(): true, users[1].Name(): true}
	for _, text := range nodes {
		name, id, ok := strings.Cut(text, "=")
		kind := contextkit.Kind(name) // checked by Of
		if !ok || id == "" {
			return nil, fmt.Errorf("node %q: want KIND=ID, or KIND=* for all nodes of a kind", text)
		}
		user := User{Role: RoleOf(kind), Kind: kind, ID: id}
		if _, err := Of(user); err != nil {
			return nil, err
		}
		if taken[user.Name()] {
			return nil, fmt.Errorf("node %q: there is a user %q already: ids are unique, also among kinds", text,
				user.Name())
		}
		taken[user.Name()] = true
		users = append(users, user)
	}
	return users, nil
}

// seed returns the seed of a user, a new one if the directory has none.
func (c Config) seed(name string) (string, error) {
	var failed error
	text, err := c.read(filepath.Join(seedsDir, name+".nk"), func() string {
		pair, err := nkeys.CreateUser()
		if err != nil {
			failed = err
			return ""
		}
		seed, err := pair.Seed()
		failed = err
		return string(seed)
	})
	return text, errors.Join(failed, err)
}

// read returns the content of a file of the directory, or a new one.
func (c Config) read(name string, fresh func() string) (string, error) {
	if c.Dir != "" {
		text, err := os.ReadFile(filepath.Join(c.Dir, name))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return string(text), err
		}
	}
	return fresh() + "\n", nil
}

// UsersConfig returns the authorization section of a server's configuration. With a password it has [OpenUser], too.
// A running server can reload it: it has no no_auth_user, which nats-server cannot add without a restart.
func UsersConfig(users []User, password string) (string, error) {
	var text strings.Builder
	text.WriteString(
		"# Users of the platform's nodes, made by 'headgate nats-config'. NATS refuses every other subject.\n",
	)
	text.WriteString("authorization {\n  users: [\n")
	if password != "" {
		text.WriteString(
			"    # For processes that have no user yet: make this file again without --open once there is none.\n",
		)
		fmt.Fprintf(&text, "    {user: %s, password: %q}\n", OpenUser, password)
	}
	for _, user := range users {
		permissions, err := Of(user)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(
			&text,
			"    { # %s\n      nkey: %s\n      permissions: {\n        publish: {allow: [%s]}\n        subscribe: "+
				"{allow: [%s]}\n      }\n    }\n",
			user.Name(), user.Key, quoted(permissions.Publish), quoted(permissions.Subscribe),
		)
	}
	text.WriteString("  ]\n}\n")
	return text.String(), nil
}

// quoted returns subjects as the elements of a list.
func quoted(subjects []string) string {
	lines := make([]string, len(subjects))
	for i, subject := range subjects {
		lines[i] = fmt.Sprintf("\n          %q", subject)
	}
	return strings.Join(lines, "")
}

// server returns the configuration of the n-th server.
func (c Config) server(n int, password string) string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	name := `"headgate"`
	switch {
	case c.Name != "":
		name = c.Name
	case len(c.Servers) > 0:
		name = strconv.Quote(c.Servers[n])
	}
	line("# NATS with JetStream, made by 'headgate nats-config'.")
	line("server_name: %s", name)
	line("listen: %q", c.Listen)
	if c.Monitor != "" {
		line("http: %q", c.Monitor)
	}
	line("# The largest event that the platform writes.")
	line("max_payload: %d", streams.MaxMessageBytes)
	if len(c.Servers) > 1 {
		line("jetstream {store_dir: %q}", c.Store)
	} else {
		line("# One server: an acknowledged write is on disk (nats.synced: true in the settings).")
		line("jetstream {store_dir: %q, sync_interval: always}", c.Store)
	}
	c.tls(line, "")
	if len(c.Servers) > 1 {
		host, _, err := net.SplitHostPort(c.Listen)
		if err != nil {
			host = "0.0.0.0"
		}
		line("cluster {")
		line("  name: headgate")
		line("  listen: %q", net.JoinHostPort(host, clusterPort))
		line("  authorization {user: route, password: %q}", password)
		c.tls(line, "  ")
		line("  routes: [")
		for _, server := range c.Servers {
			line("    \"nats-route://route:%s@%s\"", password, net.JoinHostPort(server, clusterPort))
		}
		line("  ]")
		line("}")
	}
	line("include %q", UsersFile)
	return text.String()
}

// tls writes a section for TLS, if there is a certificate.
func (c Config) tls(line func(format string, args ...any), indent string) {
	if c.Cert == "" {
		return
	}
	line("%stls {", indent)
	line("%s  cert_file: %q", indent, c.Cert)
	line("%s  key_file: %q", indent, c.Key)
	if c.CA != "" {
		line("%s  ca_file: %q", indent, c.CA)
		line("%s  verify: true", indent)
	}
	line("%s}", indent)
}

// save writes files to the directory, or prints them.
func (c Config) save(files []file, out io.Writer) error {
	for _, f := range files {
		if c.Dir == "" {
			if _, err := fmt.Fprintf(out, "==> %s <==\n%s\n", f.name, f.content); err != nil {
				return err
			}
			continue
		}
		path := filepath.Join(c.Dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := replaceFile(path, f.content); err != nil {
			return err
		}
	}
	if c.Dir == "" {
		return nil
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, f.name)
	}
	slices.Sort(names)
	_, err := fmt.Fprintf(out, "%s: %s\n", c.Dir, strings.Join(names, " "))
	return err
}

// replaceFile writes a file that its owner alone can read, by renaming: a reader never sees half of
// it.
func replaceFile(path, content string) error {
	if now, err := os.ReadFile(path); err == nil && string(now) == content {
		return nil
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
