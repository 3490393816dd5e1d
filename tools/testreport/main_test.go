package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// once is a test that fails in its first run.
const once = `
func TestOnce(t *testing.T) {
	if err := os.WriteFile("ran", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !ran {
		t.Run("part", func(t *testing.T) { t.Error("the first run") })
	}
}
`

// reportOn runs testreport on a module of one test file, and returns whether it passed, its output and its summary.
func reportOn(t *testing.T, tests string, flags ...string) (passed bool, output, summary string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "testreport")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	module := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module example\n\ngo 1.26\n",
		"example_test.go": "package example\n\nimport (\n\t\"os\"\n\t\"os/exec\"\n\t\"syscall\"\n\t\"testing\"\n)\n\n" +
			"var _, missing = os.Stat(\"ran\")\nvar ran = missing == nil\n" +
			"var _ = exec.Cmd{SysProcAttr: &syscall.SysProcAttr{}}\n" + tests,
	} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(module, "summary")
	command := exec.CommandContext(t.Context(), program, append(flags, file, "./...")...)
	command.Dir = module
	command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := command.CombinedOutput()
	written, readErr := os.ReadFile(file)
	if readErr != nil {
		t.Fatalf("%v\n%s", readErr, out)
	}
	return err == nil, string(out), string(written)
}

func TestReport_ListsATestThatPassesTheSecondTimeAsUnstable(t *testing.T) {
	passed, output, summary := reportOn(t, once)
	if !passed || !strings.Contains(output, "the first run") {
		t.Errorf("passed: %v, output:\n%s", passed, output)
	}
	if !strings.Contains(summary, "UNSTABLE: example TestOnce") || !strings.Contains(summary, "the first run") {
		t.Errorf("summary:\n%s", summary)
	}
}

func TestReport_FailsForWhatNoSecondRunExcuses(t *testing.T) {
	for name, tests := range map[string]string{
		"a test that fails twice": "func TestAlways(t *testing.T) { t.Error(\"always\") }\n",
		"more than five tests": once + strings.ReplaceAll(once, "Once", "Second") +
			strings.ReplaceAll(once, "Once", "Third") + strings.ReplaceAll(once, "Once", "Fourth") +
			strings.ReplaceAll(once, "Once", "Fifth") + strings.ReplaceAll(once, "Once", "Sixth"),
		"a panic":                       strings.ReplaceAll(once, `t.Error("the first run")`, `panic("the first run")`),
		"a package that does not build": "func TestNone(t *testing.T) { none() }\n",
		"a failure outside the tests": "func TestMain(m *testing.M) {\n\tm.Run()\n\t" +
			"if os.WriteFile(\"ran\", nil, 0o600); !ran {\n\t\tos.Exit(1)\n\t}\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if passed, output, summary := reportOn(t, tests); passed || strings.Contains(summary, "UNSTABLE") {
				t.Errorf("passed: %v\n%s\n%s", passed, output, summary)
			}
		})
	}
}

// endless is a test that is only ended from outside, with a process that outlives it.
const endless = `
func TestEndless(t *testing.T) {
	t.Log("it began")
	child := exec.Command("sleep", "3")
	child.Stdout = os.Stdout
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	select {}
}
`

func TestReport_EndsAfterItsTime(t *testing.T) {
	passed, output, summary := reportOn(t, endless, "-for", "2s")
	if !passed || !strings.Contains(summary, "LEFT OUT: 0 packages") {
		t.Errorf("passed: %v\n%s\n%s", passed, output, summary)
	}
	r := newReport()
	if r.cut.Store(true); !r.onlyCut() {
		t.Error("a run without failures that had no more time has failed")
	}
	r.take(event{Action: "fail", Package: "example", Test: "TestAlways"})
	if r.onlyCut() {
		t.Error("a failure before the end is lost")
	}
}
