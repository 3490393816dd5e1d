package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// unwanted are modules that the product does not depend on, with the reason.
var unwanted = map[string]string{
	"connectrpc.com/connect":         "the product uses connect v2 alone",
	"connectrpc.com/validate":        "it imports connect v1: protovalidate is called directly (internal/rpc)",
	"github.com/pmezard/go-difflib":  "it is no longer maintained",
	"github.com/cenkalti/backoff/v5": "waits and retries are internal/backoff's",
	"golang.org/x/tools":             "developer tools stand in the module tools/go.mod",
	"testing":                        "a program has no tests",
}

func TestDependencies_HaveNoUnwantedModule(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it runs nothing that the race detector could examine")
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		for module, why := range unwanted {
			inside := path == module || strings.HasPrefix(path, module+"/")
			if inside && !strings.HasPrefix(path, module+"/v2") {
				t.Errorf("the binary has %s: %s", path, why)
			}
		}
	}
}
