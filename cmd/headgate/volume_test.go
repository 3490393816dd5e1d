package main_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDev_LazySyncAcceptsWhatViewsProve has the whole disk of NATS of 'dev' go back, with the journal's
// record: views alone show that events are missing.
func TestDev_LazySyncAcceptsWhatViewsProve(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	data := t.TempDir()
	nats, saved := filepath.Join(data, "nats"), filepath.Join(t.TempDir(), "nats")
	var p *platform
	post := func(path, body string) (int, string) {
		t.Helper()
		return caller{t, p.gateway, "Bearer " + p.tokens["ACME"]}.post(ctx, path, body)
	}
	has := func(balance int) {
		t.Helper()
		want := fmt.Sprintf(`"balance":%d`, balance)
		if err := eventually(ctx, "the view contains "+want, func() (bool, error) {
			status, text := post("/v1/query/wallets", `{}`)
			return status == http.StatusOK && strings.Contains(text, want), fmt.Errorf("%d %s", status, text)
		}); err != nil {
			t.Fatal(err)
		}
	}
	deposit := func() (int, string) {
		return post("/v1/commands/wallet/ada/deposit", `{"payload":{"amount":5}}`)
	}
	p = start(t, data, nil, "--lazy-sync")
	if status, text := post("/v1/commands/wallet/ada/open", `{"payload":{"owner":"Ada"}}`); status != http.StatusOK {
		t.Fatal(status, text)
	}
	has(0)
	p.stop(t)
	if err := os.CopyFS(saved, os.DirFS(nats)); err != nil {
		t.Fatal(err)
	}
	p = start(t, data, nil, "--lazy-sync")
	if status, text := deposit(); status != http.StatusOK {
		t.Fatal(status, text)
	}
	has(5)
	p.stop(t)
	if err := os.RemoveAll(nats); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(nats, os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	p = start(t, data, nil, "--lazy-sync")
	has(0)
	if err := eventually(ctx, "commands are accepted", func() (bool, error) {
		status, text := deposit()
		return status == http.StatusOK, fmt.Errorf("%d %s", status, text)
	}); err != nil {
		t.Fatal(err)
	}
	has(5)
	p.stop(t)
	if log := p.stderr.String(); !strings.Contains(log, "which --lazy-sync accepts; rebuilding the views") {
		t.Errorf("no line reports that the loss was accepted:\n%s", log)
	}
}
