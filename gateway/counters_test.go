package gateway_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestCounters_ExistFromTheStartAtZero(t *testing.T) {
	e := start(t, nil)
	_, metrics := e.adminGet(t, "/metrics")
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for pattern, series := range map[string]string{
			`\.deny\(rule([A-Z][a-z]+)`:             `headgate_denied_total{process="gateway",rule="%s"} 0`,
			`retried\.WithLabelValues\("([^"]+)"\)`: `headgate_upstream_retries_total{outcome="%s",process="gateway"} 0`,
			`reason[A-Z]\w+ += "([A-Z_]+)"`:         `headgate_limited_total{process="gateway",reason="%s",scope="tenant"} 0`,
		} {
			for _, match := range regexp.MustCompile(pattern).FindAllSubmatch(source, -1) {
				found[series]++
				label := string(match[1])
				if strings.Contains(pattern, "rule") { // a constant's name
					label = strings.ToUpper(label)
				}
				if want := strings.Replace(series, "%s", label, 1); !strings.Contains(metrics, want+"\n") {
					t.Errorf("%s counts what the metrics lack: %s", file, want)
				}
			}
		}
	}
	if len(found) != 3 {
		t.Errorf("labels are only found for %v", found)
	}
}
