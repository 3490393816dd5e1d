package natsclient

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// CountAfter is CountEvents for any stream with direct gets.
func CountAfter(ctx context.Context, js jetstream.JetStream, stream, subject string, after uint64) (int64, error) {
	request, err := json.Marshal(map[string]any{"seq": after + 1, "next_by_subj": subject, "batch": 1})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, SilentAfter)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, request)
	if err != nil {
		return 0, fmt.Errorf("natsclient: count %s: %w", subject, err)
	}
	return pendingOf(reply)
}

// pendingOf returns the number of messages that an answer to a batch of one stands for (NATS
// ADR-31).
func pendingOf(reply *nats.Msg) (int64, error) {
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return 0, nil
	default:
		return 0, fmt.Errorf("natsclient: a direct get is answered %s %s", status, reply.Header.Get("Description"))
	}
	behind, err := strconv.ParseInt(reply.Header.Get("Nats-Num-Pending"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("natsclient: a direct get is answered without a number of messages: %w", err)
	}
	return behind + 1, nil
}
