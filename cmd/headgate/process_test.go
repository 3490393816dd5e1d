package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/natstest"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "headgate-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "headgate")
	build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", binary, ".")...)
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	natstest.Parallel()
	return m.Run()
}

// loadVariable enables the tests that put processes under load, or inflict faults on them, for a minute.
const loadVariable = "HEADGATE_LOAD"

// underLoad skips a test that puts processes under load unless such tests, or faults, are asked for.
func underLoad(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Getenv(loadVariable) == "" && os.Getenv(faultsVariable) == "" {
		t.Skipf("occupies the machine for a minute: set %s=1", loadVariable)
	}
}

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// platform is a running `headgate dev`.
type platform struct {
	cmd    *exec.Cmd
	args   []string
	stderr *strings.Builder
	output []string // lines of standard output up to the end of the announcement
	rest   chan string
	// URLs as announced.
	gateway, admin, aggregate, projection, runner, control string
	// tokens by variable name.
	tokens map[string]string
	// ca is the file of the authority of the gateway's certificate; "": the gateway has none.
	ca string
}

// start runs the program over a data directory until its announcement is
// complete. It reuses the addresses of a process that ran before.
func start(t *testing.T, data string, before *platform, extra ...string) *platform {
	t.Helper()
	addr := func(url string) string {
		if before == nil {
			return "127.0.0.1:0"
		}
		return strings.TrimPrefix(url, "http://")
	}
	var b platform
	if before != nil {
		b = *before
	}
	p := &platform{tokens: map[string]string{}, stderr: &strings.Builder{}, rest: make(chan string, 1)}
	p.args = append([]string{
		"dev", "--data", data, "--listen", addr(b.gateway), "--admin-listen", addr(b.admin), "--grpc-listen",
		"127.0.0.1:0", "--aggregate-listen", addr(b.aggregate),
		"--projection-listen", addr(b.projection), "--runner-listen", addr(b.runner), "--control-listen", "127.0.0.1:0",
	}, extra...)
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	timeout := time.After(startTimeout)
	for complete := false; !complete; {
		select {
		case line, ok := <-lines:
			if !ok {
				_ = p.cmd.Wait()
				t.Fatalf("the process ended while starting:\n%s\n%s", strings.Join(p.output, "\n"), p.stderr)
			}
			p.take(line)
			complete = strings.HasPrefix(line, "buf curl") && strings.Contains(line, p.projection+"/")
		case <-timeout:
			t.Fatalf("the process was not ready within %v:\n%s", startTimeout, p.stderr)
		}
	}
	go func() {
		var all []string
		for line := range lines {
			all = append(all, line)
		}
		p.rest <- strings.Join(all, "\n")
	}()
	return p
}

// take reads a line of the announcement.
func (p *platform) take(line string) {
	p.output = append(p.output, line)
	fields := strings.Fields(line)
	if len(fields) >= 2 && strings.HasPrefix(fields[1], "http://") {
		for name, url := range map[string]*string{
			"gateway": &p.gateway, "operators": &p.admin, "aggregate": &p.aggregate, "projection": &p.projection,
			"runner": &p.runner, "control": &p.control,
		} {
			if fields[0] == name {
				*url = fields[1]
			}
		}
	}
	if name, token, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok &&
		strings.HasPrefix(line, "export ") {
		p.tokens[name] = token
	}
}

// kill ends the process as a crash does.
func (p *platform) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// stop ends the process as Ctrl-C does and returns what it printed since.
func (p *platform) stop(t *testing.T) string {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var rest string
	select {
	case rest = <-p.rest:
	case <-time.After(stopTimeout):
		t.Fatalf("the process did not stop within %v", stopTimeout)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("the process did not stop clean: %v\n%s", err, p.stderr)
	}
	return rest
}

// get returns the status and body of a URL.
func get(ctx context.Context, url string, header ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	return do(req, header...)
}

func do(req *http.Request, header ...string) (int, string, error) {
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// eventually waits until condition holds, looking again every few milliseconds.
func eventually(ctx context.Context, what string, condition func() (bool, error)) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		ok, err := condition()
		if ok {
			return nil
		}
		last = err
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: %w", what, ctx.Err()), last)
		}
	}
}
