package webhook

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/natstest"
)

func TestNew_ACallHasATimeoutByDefault(t *testing.T) {
	if got := New(Config{}).client.Timeout; got != 5*time.Second {
		t.Errorf("a call may take %v, want 5 s", got)
	}
	if got := New(Config{Timeout: time.Second}).client.Timeout; got != time.Second {
		t.Errorf("a call may take %v, want the configured second", got)
	}
}

// Receivers that have failed together are not tried together.
func TestReceivers_PausesHaveJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts = 50
		var r receivers
		acme := natstest.Tenant(t, "acme")
		waits := map[time.Duration]bool{}
		for i := range hosts {
			key := receiverKey{"w/tell", fmt.Sprint("host-", i)}
			for range openAfter {
				end, err := r.acquire(t.Context(), acme, key, false)
				if err != nil {
					t.Fatal(err)
				}
				end(failed, errAnswer)
			}
			var held *HeldError
			if _, err := r.acquire(t.Context(), acme, key, false); !errors.As(err, &held) {
				t.Fatalf("%v, want that the call is held", err)
			}
			waits[time.Until(held.Until)] = true
		}
		if len(waits) < hosts/2 {
			t.Errorf("%d different waits of %d receivers", len(waits), hosts)
		}
	})
}
