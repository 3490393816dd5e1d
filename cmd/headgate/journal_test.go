package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// TestJournal_LossIsAcceptedThroughTheGateway has the journal of 'dev' lose its last event.
func TestJournal_LossIsAcceptedThroughTheGateway(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls the platform; other tests cover this under the race detector")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	data := t.TempDir()
	p := start(t, data, nil)
	post := func(path, token, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		status, text, err := do(req, "authorization", "Bearer "+p.tokens[token], "content-type", "application/json")
		if err != nil {
			t.Fatal(err)
		}
		return status, text
	}
	deposit := func() (int, string) {
		return post("/v1/commands/wallet/ada/deposit", "ACME", `{"payload":{"amount":5}}`)
	}
	if status, text := post(
		"/v1/commands/wallet/ada/open", "ACME", `{"payload":{"owner":"Ada"}}`,
	); status != http.StatusOK {
		t.Fatal(status, text)
	}
	for range 3 {
		if status, text := deposit(); status != http.StatusOK {
			t.Fatal(status, text)
		}
	}
	projected := func(balance int) {
		t.Helper()
		want := fmt.Sprintf(`"balance":%d`, balance)
		if err := eventually(ctx, "the view contains "+want, func() (bool, error) {
			status, text := post("/v1/query/wallets", "ACME", `{}`)
			return status == http.StatusOK && strings.Contains(text, want), fmt.Errorf("%d %s", status, text)
		}); err != nil {
			t.Fatal(err)
		}
	}
	projected(15)
	p.stop(t)
	verify := func() (string, error) {
		output, err := exec.CommandContext(ctx, binary, "journal", "verify", "--data", data).Output()
		return string(output), err
	}
	if output, err := verify(); err != nil ||
		!strings.Contains(output, "4 events of 1 aggregates were read\nthe journal is whole") {
		t.Errorf("%s, %v", output, err)
	}
	nats := filepath.Join(data, "nats")
	blocks := natstest.Blocks(t, nats, streams.Events)
	natstest.Alter(t, blocks[len(blocks)-1], -100)
	natstest.DropIndex(t, nats, streams.Events)
	output, err := verify()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 ||
		!strings.Contains(output, "its end is missing") ||
		!strings.Contains(
			output, "the views of tenant acme in "+filepath.Join(data, "views"),
		) || !strings.Contains(output, "have followed the journal to sequence 4, and it ends at 3") {
		t.Errorf("%s, %v", output, err)
	}

	p = start(t, data, nil)
	if status, text := deposit(); status != http.StatusInternalServerError ||
		!strings.Contains(text, "JOURNAL_END_MISSING") {
		t.Errorf("command: %d %s", status, text)
	}
	projected(15) // reads continue, with what was lost
	if status, text, err := get(ctx, p.aggregate+"/ready"); err != nil || status != http.StatusOK ||
		!strings.Contains(text, "its end is missing") {
		t.Errorf("readiness: %d %s, %v", status, text, err)
	}
	for name, url := range map[string]string{
		"projection": p.projection, "runner": p.runner, "edge": p.gateway, "gateway's operators' port": p.admin,
	} {
		if err := eventually(ctx, name+" reports the damage", func() (bool, error) {
			status, body := ready(ctx, t, url)
			return status == http.StatusOK &&
				strings.Contains(body.Degraded["journal"], "missing"), fmt.Errorf("%d %+v", status, body)
		}); err != nil {
			t.Error(err)
		}
	}
	if status, text, err := get(ctx, p.aggregate+"/ready?tenant=acme"); err != nil ||
		status != http.StatusServiceUnavailable || !strings.Contains(text, "until an operator accepts the loss") {
		t.Errorf("readiness for a tenant: %d %s, %v", status, text, err)
	}
	if status, text, err := get(ctx, p.aggregate+"/metrics"); err != nil || status != http.StatusOK ||
		!strings.Contains(text, `headgate_journal_damage{kind="end",process="aggregate"} 1`) {
		t.Errorf("metrics: %d, %v", status, err)
	}
	if status, text := post(
		"/v1/control/journal:acceptLoss", "ACME", `{"reason":"mine"}`,
	); status != http.StatusForbidden {
		t.Errorf("loss accepted by a tenant: %d %s", status, text)
	}
	credential := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(credential, []byte(p.tokens["OPERATOR"]), 0o600); err != nil {
		t.Fatal(err)
	}
	accepted := headgate(t, "journal", "accept-loss", "--gateway", p.gateway, "--credential", credential, "--reason",
		"the disk is gone")
	if !strings.Contains(accepted, "the disk is gone") || !strings.Contains(accepted, `"by":"operator"`) {
		t.Errorf("%s", accepted)
	}
	if err := eventually(ctx, "commands are accepted again", func() (bool, error) {
		status, text := deposit()
		return status == http.StatusOK, fmt.Errorf("%d %s", status, text)
	}); err != nil {
		t.Fatal(err)
	}
	projected(15) // two that are left, and the new one: the view is rebuilt
	if status, text, err := get(
		ctx, p.gateway+"/v1/control/journal", "authorization", "Bearer "+p.tokens["OPERATOR"],
	); err != nil || status != http.StatusOK ||
		!strings.Contains(text, "the journal is whole, except for losses that an operator has accepted") {
		t.Errorf("%d %s, %v", status, text, err)
	}
	if err := eventually(ctx, "the gateway reports no damage", func() (bool, error) {
		_, body := ready(ctx, t, p.gateway)
		return body.Degraded["journal"] == "", nil
	}); err != nil {
		t.Error(err)
	}
	p.stop(t)
	if output, err := verify(); err != nil ||
		strings.Contains(output, "views") { // those of the former epoch do not count
		t.Errorf("%s, %v", output, err)
	}
	if !strings.Contains(p.stderr.String(), "the journal is damaged") {
		t.Errorf("no line reports that the journal is damaged:\n%s", p.stderr)
	}
}

// TestJournal_NewOneBesideViewsIsRefused removes the journal of 'dev', and leaves the views.
func TestJournal_NewOneBesideViewsIsRefused(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := t.TempDir()
	p := start(t, data, nil)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	send := func(path, body string) (int, string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		status, text, err := do(req, "authorization", "Bearer "+p.tokens["ACME"], "content-type", "application/json")
		if err != nil {
			t.Fatal(err)
		}
		return status, text
	}
	if status, text := send("/v1/commands/wallet/ada/open", `{"payload":{"owner":"Ada"}}`); status != http.StatusOK {
		t.Fatal(status, text)
	}
	if err := eventually(ctx, "the view contains the wallet", func() (bool, error) {
		status, text := send("/v1/query/wallets", `{}`)
		return status == http.StatusOK && strings.Contains(text, "Ada"), fmt.Errorf("%d %s", status, text)
	}); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	nats := filepath.Join(data, "nats")
	if err := os.RemoveAll(natstest.StreamDir(nats, streams.Events)); err != nil {
		t.Fatal(err)
	}
	verified, err := exec.CommandContext(ctx, binary, "journal", "verify", "--data", data).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 ||
		!strings.Contains(string(verified), "the stream EVENTS is missing") {
		t.Errorf("verify: %v: %s", err, verified)
	}
	if err := os.RemoveAll(nats); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(ctx, binary, p.args...).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "--new-journal") {
		t.Fatalf("%v: %s", err, output)
	}
	start(t, data, nil, "--new-journal").stop(t)
	start(t, data, nil).stop(t)
}
