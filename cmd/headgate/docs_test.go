package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// blocks returns the text of a page's fenced blocks of a language, without the blocks that state why they
// are not run ("```sh not run: …").
func blocks(t *testing.T, path, language string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for rest := string(text); ; {
		_, after, found := strings.Cut(rest, "```"+language+"\n")
		if !found {
			break
		}
		block, end, _ := strings.Cut(after, "\n```")
		all, rest = append(all, block), end
	}
	if len(all) == 0 {
		t.Fatalf("%s has no %s block", path, language)
	}
	if strings.Contains(string(text), " ```") {
		t.Fatalf("%s has an indented block, whose end is not found", path)
	}
	return all
}

// runPlaybooks runs the commands of docs/playbooks.md against the local cluster in dir, whose first
// port is base. Each must succeed, and no answer may be an error.
func runPlaybooks(ctx context.Context, t *testing.T, dir string, base int, tokens []string) {
	t.Helper()
	const mark = "---headgate-playbook---"
	port := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", base+n) }
	cluster := strings.NewReplacer(
		"127.0.0.1:18010", port(10), "127.0.0.1:18012", port(12), "127.0.0.1:18031", port(31),
		" cluster/", " "+dir+"/", "cluster/start", dir+"/start",
	)
	var (
		script   strings.Builder
		commands []string
	)
	fmt.Fprintf(&script, "export PATH=%s/bin:$PATH\n%s\n", dir, strings.Join(tokens, "\n"))
	for _, block := range blocks(t, "../../docs/playbooks.md", "sh") {
		for line := range strings.Lines(block) {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			commands = append(commands, line)
			fmt.Fprintf(&script, "%s\nstatus=$?; echo; echo %s $status\n", cluster.Replace(line), mark)
		}
	}
	bash := exec.CommandContext(ctx, "bash", "-c", script.String())
	bash.Dir = t.TempDir()
	output := filepath.Join(bash.Dir, "output") // a process that the commands start again holds it
	file, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	bash.Stdout, bash.Stderr = file, file
	err = bash.Run()
	_ = file.Close()
	text, readErr := os.ReadFile(output)
	if err != nil || readErr != nil {
		t.Errorf("%v, %v: %s", err, readErr, text)
		return
	}
	printed := strings.Split(string(text), mark)
	if len(printed) != len(commands)+1 {
		t.Errorf("%d outputs of %d commands:\n%s", len(printed)-1, len(commands), text)
		return
	}
	for i, command := range commands {
		if !strings.HasPrefix(printed[i+1], " 0\n") || strings.Contains(printed[i], "\n{\"code\":") {
			t.Errorf("docs/playbooks.md: %s\nprints %s\nand ends with%s", command, printed[i],
				strings.SplitN(printed[i+1], "\n", 2)[0])
		}
	}
}

// The commands of docs/serve.md start a platform, which then accepts a command. Its roles have the
// default addresses there, and free ones here.
func TestDocs_ServePageStartsAPlatform(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts six processes")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	addr := map[string]string{}
	for _, name := range []string{"nats", "gateway", "grpc", "admin", "aggregate", "projection", "runner", "control"} {
		addr[name] = freePort(t)
	}
	natsPort := addr["nats"][strings.LastIndex(addr["nats"], ":")+1:]
	listen := func(role string) string {
		return fmt.Sprintf("%s:\n  server: {listen: %q}\n", role, addr[role])
	}
	page := strings.NewReplacer(
		"go build -o headgate ./cmd/headgate", "cp "+binary+" "+dir+"/headgate",
		"./headgate", dir+"/headgate", "./cluster", dir+"/cluster", "cluster/", dir+"/cluster/", "mkdir -p cluster",
		"mkdir -p "+dir+"/cluster",
		"nats-server -a", "nats-server -p "+natsPort+" -a",
		"gateway:\n",
		fmt.Sprintf("nats: {url: %q}\n", "nats://"+addr["nats"])+listen("gateway")+
			fmt.Sprintf("  grpc: %q\n  admin: %q\n", addr["grpc"], addr["admin"]),
		"projection: {",
		listen("aggregate")+listen("control")+fmt.Sprintf("projection: {server: {listen: %q}, ", addr["projection"]),
		"runner: {", fmt.Sprintf("runner: {server: {listen: %q}, gateway: %q, ", addr["runner"], addr["gateway"]),
	)
	script := page.Replace(blocks(t, "../../docs/serve.md", "sh")[0]) + "\n" + `
token=$(` + dir + `/headgate token --data ` + dir + `/cluster --tenant acme --right command.submit --right query.read)
until curl -sf http://` + addr["gateway"] +
		`/v1/commands/wallet/served/open -H "authorization: Bearer $token" --json '{"payload":{"owner":"Ada"}}'; do sleep 0.1; done
`
	bash := exec.CommandContext(ctx, "bash", "-euc", script)
	bash.Dir = root
	bash.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output := filepath.Join(dir, "output") // the processes hold it after the script's end
	file, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	bash.Stdout, bash.Stderr = file, file
	bash.Cancel = func() error { return syscall.Kill(-bash.Process.Pid, syscall.SIGKILL) }
	err = bash.Run()
	// What the script has started ends with its group; NATS is started by go, which is in it too.
	_ = syscall.Kill(-bash.Process.Pid, syscall.SIGTERM)
	if endErr := eventually(ctx, "all processes end", func() (bool, error) {
		return syscall.Kill(-bash.Process.Pid, 0) == syscall.ESRCH, nil
	}); endErr != nil {
		_ = syscall.Kill(-bash.Process.Pid, syscall.SIGKILL)
		t.Error(endErr)
	}
	text, readErr := os.ReadFile(output)
	if err != nil || readErr != nil || !strings.Contains(string(text), `{"events":[{"id":`) {
		t.Errorf("%v, %v: %s", err, readErr, text)
	}
}
