package node

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// withStore calls do for the streams in the data directory of a development platform.
func withStore(t *testing.T, data string, do func(jetstream.JetStream)) {
	t.Helper()
	server, err := natsserver.Start(t.Context(), natsserver.Config{Dir: filepath.Join(data, "nats"), LazySync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := server.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	do(js)
}

// Restored over the data of a platform, an earlier backup brings no revoked token back, and no withdrawn revocation
// either; elsewhere the command reports that revocations since the backup are not known.
func TestRestore_RevokedTokensStayRevoked(t *testing.T) {
	t.Parallel()
	ctx := contextkit.PlatformContext(t.Context())
	data, dir := t.TempDir(), filepath.Join(t.TempDir(), "b")
	began := time.Now().Add(-time.Minute)
	revocation := func(id string, withdrawn bool, age time.Duration) credentials.Revocation {
		return credentials.Revocation{
			Issuer:    "i",
			TokenID:   id,
			Expires:   time.Now().Add(time.Hour),
			Withdrawn: withdrawn,
			Time:      began.Add(age),
		}
	}
	store := func(js jetstream.JetStream, all ...credentials.Revocation) {
		t.Helper()
		revocations, err := credentials.OpenStore[credentials.Revocation](ctx, js, streams.BucketRevocations)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			entry, err := revocations.Get(ctx, r.ID())
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				t.Fatal(err)
			}
			if _, err := revocations.Put(ctx, r.ID(), r, entry.Revision); err != nil {
				t.Fatal(err)
			}
		}
	}
	withStore(t, data, func(js jetstream.JetStream) {
		if err := setup.Ensure(ctx, js, 1); err != nil {
			t.Fatal(err)
		}
		if err := kv.EnsureSecrets(ctx, js); err != nil {
			t.Fatal(err)
		}
		store(js, revocation("early", false, 0), revocation("mistaken", false, 0))
	})
	var out, progress bytes.Buffer
	if err := Backup(ctx, Store{Data: data}, dir, &out, &progress); err != nil {
		t.Fatal(err)
	}
	withStore(t, data, func(js jetstream.JetStream) {
		store(js, revocation("late", false, time.Second), revocation("mistaken", true, time.Second))
	})
	restore := func(data string, replace bool, want string, known map[string]bool) {
		t.Helper()
		out.Reset()
		if err := Restore(ctx, Store{Data: data}, dir, replace, &out, &progress); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); !strings.Contains(text, want) || !strings.Contains(text, "revoke these tokens again") {
			t.Errorf("the command reports %q, want %q", text, want)
		}
		withStore(t, data, func(js jetstream.JetStream) {
			got, sealed, err := revocationsIn(ctx, js)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(known) || sealed != 0 {
				t.Errorf("%d revocations, want %d", len(got), len(known))
			}
			for _, r := range got {
				if withdrawn, ok := known[r.TokenID]; !ok || r.Withdrawn != withdrawn {
					t.Errorf("revocation of %s, withdrawn %v", r.TokenID, r.Withdrawn)
				}
			}
		})
	}
	restore(data, true, "2 revocations", map[string]bool{"early": false, "mistaken": true, "late": false})
	restore(t.TempDir(), false, "0 revocations", map[string]bool{"early": false, "mistaken": false})
}
