package main_test

import (
	"encoding/json"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

func TestVersion_IsPrintedAsTextAndJSON(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	text, err := exec.CommandContext(t.Context(), binary, "version").Output()
	if err != nil || !strings.HasPrefix(string(text), "headgate ") ||
		!strings.HasSuffix(string(text), runtime.GOOS+"/"+runtime.GOARCH+"\n") {
		t.Errorf("%q, %v", text, err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "version", "--json").Output()
	var info struct{ Version, Go, Platform string }
	if err == nil {
		err = json.Unmarshal(out, &info)
	}
	if err != nil || info.Version == "" || info.Go != runtime.Version() || info.Platform == "" {
		t.Errorf("%s, %v", out, err)
	}
}
