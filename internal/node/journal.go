package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/setup"
)

// ErrDamaged reports that a journal is damaged.
var ErrDamaged = errors.New("the journal is not whole")

// VerifyJournal reads the whole journal of a store and writes to out which sequences are missing, and which views, in
// SQLite or PostgreSQL, have followed it beyond its end. Error: [ErrDamaged] if it is damaged.
func VerifyJournal(ctx context.Context, store Store, out io.Writer) (err error) {
	ctx = contextkit.PlatformContext(ctx)
	ctx, js, _, closed, err := store.open(ctx, false)
	if err != nil {
		return err
	}
	defer closed()
	defer func() { err = refusalOf(ctx, err) }()
	report, err := journal.Verify(ctx, js)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: %w", ErrDamaged, setup.ErrJournalMissing)
	}
	if err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("%d events of %d aggregates were read", report.Events, report.Aggregates)}
	if report.Damage != nil {
		lines = append(lines, report.Damage.String())
	}
	for _, gap := range report.Gaps {
		lines = append(lines, "missing: sequences "+gap.String())
	}
	for _, gap := range report.Accepted {
		lines = append(lines, "missing, and accepted as lost by an operator: sequences "+gap.String())
	}
	if report.NonEvents > 0 {
		lines = append(lines, fmt.Sprintf("messages that operators have declared non-events: %d", report.NonEvents))
	}
	views, err := store.compareViews(ctx, js, report)
	if err != nil {
		return err
	}
	lines = append(append(append(lines, report.Faults...), views.beyond...), views.unread...)
	if report.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d further faults", report.More))
	}
	whole := report.Whole() && len(views.beyond) == 0
	switch {
	case whole && len(report.Accepted) > 0:
		lines = append(lines, "the journal is whole, except for losses that an operator has accepted")
	case whole:
		lines = append(lines, "the journal is whole")
	}
	if _, err := fmt.Fprintln(out, strings.Join(lines, "\n")); err != nil || whole {
		return err
	}
	return ErrDamaged
}

// acceptTimeout bounds the call that accepts a loss, and maxAcceptAnswer the bytes of its response.
const acceptTimeout, maxAcceptAnswer = 15 * time.Second, 64 << 10

// AcceptLoss asks a gateway's control service to accept the loss of the journal, with the credential in a file, and
// writes the response to out.
func AcceptLoss(ctx context.Context, gateway, credential, reason string, out io.Writer) error {
	token, err := readCredential(credential)
	if err != nil {
		return fmt.Errorf("--credential: %w", err)
	}
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), acceptTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost,
		strings.TrimSuffix(gateway, "/")+"/v1/control/journal:acceptLoss", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("--gateway: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: contextkit.HTTPTransport(http.DefaultTransport)}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("--gateway: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAcceptAnswer))
	if err != nil {
		return fmt.Errorf("--gateway: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway returned %s: %s", response.Status, bytes.TrimSpace(answer))
	}
	_, err = fmt.Fprintln(out, string(bytes.TrimSpace(answer)))
	return err
}
