package main_test

import (
	"bufio"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheSettingsOfEveryDeploymentCanBeUsed(t *testing.T) {
	if testing.Short() {
		t.Skip("a process a file and role")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"keys.json":    headgate(t, "keys", "--data", dir),
		"runner.token": headgate(t, "token", "--data", dir, "--subject", "runner", "--tenant", "*", "--right", "command.submit"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, deployment := range []string{"compose", "kubernetes"} {
		text, err := os.ReadFile("../../deploy/" + deployment + "/headgate.yaml")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, deployment+".yaml")
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/etc/headgate/secrets", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, role := range []string{"gateway", "aggregate", "projection", "runner", "control"} {
			cmd := exec.CommandContext(t.Context(), binary, "serve", role, "--config", path, "--check")
			cmd.Env = append(os.Environ(), "POD_NAME="+role+"-0", "VIEWS_PASSWORD=secret")
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %s", deployment, role, output)
			}
		}
	}
}

func TestAlertsAndDashboardsAskForMetricsThatThereAre(t *testing.T) {
	name := regexp.MustCompile(`headgate_[a-z0-9_]+`)
	made := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && (entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2) {
			if err == nil {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		for _, quoted := range regexp.MustCompile(`"headgate_[a-z0-9_]+"`).FindAllString(string(source), -1) {
			made[strings.Trim(quoted, `"`)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	handbook, err := os.ReadFile("../../docs/playbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"prometheus/headgate.rules.yaml", "grafana/headgate.json"} {
		text, err := os.ReadFile("../../deploy/" + path)
		if err != nil {
			t.Fatal(err)
		}
		asked := name.FindAllString(string(text), -1)
		if len(asked) == 0 {
			t.Errorf("%s asks for nothing", path)
		}
		for _, metric := range asked {
			if !made[strings.TrimSuffix(strings.TrimSuffix(metric, "_bucket"), "_count")] {
				t.Errorf("%s asks for %s, which nothing makes", path, metric)
			}
		}
		for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(handbook), "### "+alert[1]+"\n") {
				t.Errorf("docs/playbooks.md does not say what to do about %s", alert[1])
			}
		}
	}
}

func TestTheLocalClusterStartsAndStops(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds programs of its own")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "../../deploy/local/cluster.sh", dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	_, port, _ := strings.Cut(freePort(t), ":")
	chosen, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	// Below the ports that the system gives to connections, which come and go.
	cmd.Env = append(os.Environ(), "HEADGATE_PORTS="+strconv.Itoa(20_000+chosen%100*100))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	ready := false
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		lines = append(lines, scanner.Text())
		if strings.HasPrefix(scanner.Text(), "11 nodes are ready") {
			ready = true
		}
		if strings.HasPrefix(scanner.Text(), "curl") && strings.Contains(scanner.Text(), "/v1/query/") {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !ready || !strings.HasPrefix(lines[len(lines)-1], "all has stopped") {
		t.Errorf("%v:\n%s", err, strings.Join(lines, "\n"))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "pids", "*")); len(left) > 0 {
		t.Errorf("%v still run", left)
	}
}
