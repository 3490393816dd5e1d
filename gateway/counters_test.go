package gateway_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestCounters_SeriesStartAtZero(t *testing.T) {
	e := start(t, nil)
	_, metrics := e.adminGet(t, "/metrics")
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, file := range append(files, "../internal/rpc/reason.go") {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for pattern, series := range map[string]string{
			`Reason\w+ +ErrorReason = "(\w+_(?:CREDENTIAL|SUSPENDED|RIGHT)|TENANT_MISMATCH)"`: `headgate_denied_total{process="gateway",reason="%s"} 0`,
			`Reason\w+ +ErrorReason = "(\w+_LIMIT|GATEWAY_FULL)"`:                             `headgate_limited_total{process="gateway",reason="%s",scope="tenant"} 0`,
			`retry\w+ +retryOutcome += "(\w+)"`:                                               `headgate_upstream_retries_total{outcome="%s",process="gateway"} 0`,
			`end\w+ +streamEnd += "(\w+)"`:                                                    `headgate_streams_ended_total{process="gateway",reason="%s"} 0`,
		} {
			for _, match := range regexp.MustCompile(pattern).FindAllSubmatch(source, -1) {
				found[series]++
				if want := strings.Replace(series, "%s", string(match[1]), 1); !strings.Contains(metrics, want+"\n") {
					t.Errorf("the metrics lack a series of %s: %s", file, want)
				}
			}
		}
	}
	if len(found) != 4 {
		t.Errorf("labels found for %v only", found)
	}
}
