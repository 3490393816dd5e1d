package runner_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/natstest"
)

// lines sends each line of a log.
type lines chan []byte

// Write implements io.Writer.
func (l lines) Write(line []byte) (int, error) {
	l <- append([]byte(nil), line...)
	return len(line), nil
}

// Every log line of an attempt has its correlation id, including due work, and a call that the breaker holds is not a
// warning, since thousands of instances may wait for one receiver.
func TestRetries_LogCorrelationAndHeldCallsBelowWarning(t *testing.T) {
	server := httptest.NewServer(
		http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		),
	)
	defer server.Close()
	log := make(lines, 10_000)
	f := startOn(t, natstest.Start(t), withHook("'"+server.URL+"'"), localHooks, []string{"acme"}, func(f *fixture) {
		f.log = zerolog.New(log)
		f.run(t)
	})
	for n := range 8 {
		f.submit(t, "acme", "wallet", fmt.Sprint("w", n), "open", map[string]any{"owner": "x"})
	}
	attempts, held := map[string]int{}, false
	for again := false; !again || !held; {
		var line struct {
			Level, Message, Error, Instance string
			CorrelationID                   string `json:"correlation_id"`
		}
		select {
		case text := <-log:
			if err := json.Unmarshal(text, &line); err != nil {
				t.Fatal(err)
			}
		case <-t.Context().Done():
			t.Fatalf("no due attempt was logged for the instances %v, or none was held back (%t)", attempts, held)
		}
		if line.Message != "a step failed, retrying" {
			continue
		}
		if line.CorrelationID == "" {
			t.Fatalf("log line without its correlation id: %+v", line)
		}
		if strings.Contains(line.Error, "circuit breaker of the receiver") {
			if held = true; line.Level != "debug" {
				t.Fatalf("level of a held call's line: %s", line.Level)
			}
		} else if line.Level != "warn" {
			t.Fatalf("level of a failed attempt's line: %s", line.Level)
		}
		attempts[line.Instance]++
		again = again || attempts[line.Instance] > 1
	}
}
