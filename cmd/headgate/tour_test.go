package main_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is a command of a page and what it prints.
type example struct {
	page          string
	line          int
	command, want string
}

// examples reads the fenced blocks of a language: "$ " begins a command, the
// lines up to the next are its output.
func examples(t *testing.T, path, language string) []example {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var (
		list   []example
		inside bool
	)
	scanner := bufio.NewScanner(file)
	for line := 1; scanner.Scan(); line++ {
		text := scanner.Text()
		switch {
		case text == "```"+language:
			inside = true
		case strings.HasPrefix(text, "```"):
			inside = false
		case !inside:
		case strings.HasPrefix(text, "$ "):
			list = append(list, example{page: filepath.Base(path), line: line, command: text[2:]})
		default:
			list[len(list)-1].want += text + "\n"
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s has no %s block", path, language)
	}
	return list
}

// addresses replaces the default addresses by those of a process.
func (p *platform) addresses(text string) string {
	return strings.NewReplacer("http://127.0.0.1:8080", p.gateway, "http://127.0.0.1:8081", p.aggregate,
		"http://127.0.0.1:8082", p.projection, "http://127.0.0.1:8083", p.runner).Replace(text)
}

// shell runs commands in one bash, from the repository's root, and returns what
// each printed.
func (p *platform) shell(t *testing.T, commands []string) []string {
	t.Helper()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the lines need a shell with curl: %v", err)
		}
	}
	const mark = "---headgate-tour---"
	var script strings.Builder
	for _, command := range commands {
		script.WriteString(p.addresses(command) + "\necho; echo " + mark + "\n")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bash := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	bash.Dir = root
	bash.Env = append(os.Environ(), "CURL_CA_BUNDLE="+p.ca)
	for name, token := range p.tokens {
		bash.Env = append(bash.Env, name+"="+token)
	}
	var complaints strings.Builder
	bash.Stderr = &complaints
	out, err := bash.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, complaints.String())
	}
	parts := strings.Split(string(out), mark+"\n")
	if len(parts) != len(commands)+1 {
		t.Fatalf("%d outputs of %d commands:\n%s\n%s", len(parts)-1, len(commands), out, complaints.String())
	}
	return parts[:len(commands)]
}

// check runs examples and compares what they print; "…" stands for anything.
func (p *platform) check(t *testing.T, list []example) {
	t.Helper()
	commands := make([]string, len(list))
	for i, e := range list {
		commands[i] = e.command
	}
	for i, got := range p.shell(t, commands) {
		want := "^" + strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(list[i].want)), "…", ".*") + "$"
		if got = strings.TrimSpace(got); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s:%d: %s\nprints %s\n  want %s", list[i].page, list[i].line, list[i].command, got,
				strings.TrimSpace(list[i].want))
		}
	}
}

// buf is whether the lines that need buf are run: building it takes minutes on
// a fresh machine.
var buf = os.Getenv("HEADGATE_BUF") != ""

func TestTour_OutputMatchesTheREADME(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	p := start(t, t.TempDir(), nil)
	p.check(t, examples(t, "../../README.md", "console"))
	p.check(t, examples(t, "../../docs/models.md", "console"))
	if buf {
		p.check(t, examples(t, "../../README.md", "buf"))
	}
	p.stop(t)
}

func TestDev_PrintedCommandsWork(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	p := start(t, t.TempDir(), nil)
	var commands []string
	for _, line := range p.output {
		isBuf := strings.HasPrefix(line, "buf curl") || strings.HasPrefix(line, "command -v buf")
		if strings.HasPrefix(line, "export ") || strings.HasPrefix(line, "curl ") || (buf && isBuf) {
			commands = append(commands, line)
		}
	}
	answers := 0
	for i, got := range p.shell(t, commands) {
		got = strings.TrimSpace(got)
		switch {
		case strings.HasPrefix(commands[i], "export ") || strings.HasPrefix(commands[i], "command "):
		case !strings.HasPrefix(got, "{") || strings.Contains(got, `"code"`):
			t.Errorf("%s\nprints %s", commands[i], got)
		default:
			answers++
		}
	}
	if answers < 4 {
		t.Errorf("%d lines ran", answers)
	}
	p.stop(t)
}
