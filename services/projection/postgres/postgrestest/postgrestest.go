// Package postgrestest runs a PostgreSQL server for tests: a separate cluster in a temporary directory, on a private
// unix socket.
package postgrestest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotInstalled reports that PostgreSQL is not installed on this machine.
var ErrNotInstalled = errors.New("postgrestest: PostgreSQL is not installed (Debian: apt-get install postgresql)")

const (
	startTimeout = 30 * time.Second
	// role owns the databases and is not a superuser.
	role = "headgate"
)

// Server is a running server.
type Server struct {
	dir        string
	bin        string // directory of PostgreSQL's programs
	attributes *syscall.SysProcAttr
	cmd        *exec.Cmd
	n          atomic.Int64
}

// binaries returns the directory of the newest server on this machine.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // path on Debian
	slices.Sort(found)
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrNotInstalled
}

// Start starts a server; Stop ends it. Nothing is synced to the disk.
func Start() (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "headgate-pg")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if s.attributes, err = unprivileged(dir); err == nil {
		err = s.create()
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// unprivileged returns the attributes of a process that is not root's, since PostgreSQL refuses to run as root, and
// gives that user the directory.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // the current user's process is fine
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// create creates the cluster and starts its server.
func (s *Server) create() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	initdb := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", "postgres", "-A", "trust",
		"--no-sync", "-E", "UTF8", "--locale", "C")
	initdb.SysProcAttr, initdb.Dir = s.attributes, s.dir
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("postgrestest: initdb: %w: %s", err, output)
	}
	if err := s.Resume(); err != nil {
		return err
	}
	return s.execute(ctx, "postgres", "CREATE ROLE "+role+" LOGIN")
}

// Resume starts the server on its existing data after Halt.
func (s *Server) Resume() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	//nolint:noctx // the server outlives its start
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c",
		"fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	s.cmd.SysProcAttr, s.cmd.Dir = s.attributes, s.dir
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan string, 1)
	go func() { // ends with the server
		var said []string
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			said = append(said, lines.Text())
			if strings.Contains(lines.Text(), "database system is ready") {
				select {
				case ready <- "":
				default:
				}
			}
		}
		select {
		case ready <- strings.Join(said, "\n"):
		default:
		}
	}()
	select {
	case failure := <-ready:
		if failure != "" {
			return fmt.Errorf("postgrestest: the server ended: %s", failure)
		}
	case <-ctx.Done():
		return fmt.Errorf("postgrestest: the server was not ready within %v", startTimeout)
	}
	return nil
}

// Halt stops the server and leaves its data; its clients' connections end.
func (s *Server) Halt() error {
	err := s.cmd.Process.Signal(syscall.SIGINT) // "fast shutdown"
	if err == nil {
		err = s.cmd.Wait()
	}
	s.cmd = nil
	return err
}

// Freeze suspends the server's processes: connections stay open, and no request is answered. It needs Linux.
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (s *Server) Thaw() error { return s.signal(syscall.SIGCONT) }

// signal sends a signal to the server and its child processes.
func (s *Server) signal(to syscall.Signal) error {
	pid := s.cmd.Process.Pid
	if err := s.cmd.Process.Signal(to); err != nil { // it starts no further process from now on
		return err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	var errs []error
	for field := range strings.FieldsSeq(string(children)) {
		child, err := strconv.Atoi(field)
		if err == nil {
			err = syscall.Kill(child, to)
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Stop ends the server and removes its files.
func (s *Server) Stop() error {
	var errs []error
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.Thaw()                                               // a test may have failed in between
		errs = append(errs, s.cmd.Process.Signal(syscall.SIGQUIT)) // immediately: no data is needed
		_ = s.cmd.Wait()                                           // it was signaled
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// Database creates an empty database for a test and returns its URL, for a user that owns it and is subject to
// row-level security.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.n.Add(1))
	if err := s.execute(t.Context(), "postgres", "CREATE DATABASE "+name+" OWNER "+role); err != nil {
		t.Fatal(err)
	}
	return s.URL(name, role)
}

// URL returns the URL of a database for a user.
func (s *Server) URL(database, user string) string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Host:     "",
		Path:     "/" + database,
		RawQuery: url.Values{"host": {s.dir}}.Encode(),
	}).String()
}

func (s *Server) execute(ctx context.Context, database, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL(database, "postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the statement has been executed
	_, err = conn.Exec(ctx, statement)
	return err
}
