package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/natstest"
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
	restore(t.TempDir(), false, "credentials: revocations of tokens that were made after",
		map[string]bool{"early": false, "mistaken": false})
}

// cut is a connection that ends before it sends a message to a subject for the nth time.
type cut struct {
	net.Conn

	subject string
	left    atomic.Int64
	ended   func()
}

// Write implements [net.Conn].
func (c *cut) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || !strings.HasSuffix(fields[0], "PUB") || !strings.HasPrefix(fields[1], c.subject) {
			continue
		}
		if c.left.Add(-1) == 0 {
			c.ended()
			_ = c.Close()
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Write(p)
}

// Dial connects to a server, for [nats.SetCustomDialer].
func (c *cut) Dial(network, address string) (_ net.Conn, err error) {
	c.Conn, err = net.Dial(network, address)
	return c, err
}

// A restore that ends at any step loses no revocation: nodes do not start before the next restore has completed it.
func TestRestore_RevocationsSurviveAnInterruptionAtEachStep(t *testing.T) {
	t.Parallel()
	ctx := contextkit.PlatformContext(t.Context())
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(ctx, natstest.Start(t), dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	revocations := "$KV." + streams.BucketRevocations + "."
	for _, step := range []struct {
		name, subject string
		nth           int64
	}{
		{"before it begins", "$JS.API.STREAM.CREATE.RESTORING", 1},
		{"before the revocations are retained", "restoring", 1},
		{"before they are retained completely", "restoring", 2},
		{"before the first deletion", "$JS.API.STREAM.DELETE.", 1},
		{"before their deletion", "$JS.API.STREAM.DELETE.KV_" + streams.BucketRevocations, 1},
		{"after a part of the deletions", "$JS.API.STREAM.DELETE.", 12},
		{"before the first stream is restored", "$JS.API.STREAM.RESTORE.", 1},
		{"before the journal is restored", "$JS.API.STREAM.RESTORE." + streams.Events, 1},
		{"before the first revocation is returned", revocations, 1},
		{"before the last revocation is returned", revocations, 2},
		{"before nodes can start", "$JS.API.STREAM.DELETE.RESTORING", 1},
	} {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			js := natstest.Connect(t, natstest.Server(t, &server.Options{}))
			if err := kv.EnsureSecrets(ctx, js); err != nil {
				t.Fatal(err)
			}
			// Without it a restore does not wait for announcements.
			if err := js.DeleteStream(ctx, streams.BucketStream(streams.BucketNodes)); err != nil {
				t.Fatal(err)
			}
			store, err := credentials.OpenStore[credentials.Revocation](ctx, js, streams.BucketRevocations)
			if err != nil {
				t.Fatal(err)
			}
			for _, subject := range []string{"ada", "eve"} {
				now := time.Now()
				r := credentials.Revocation{
					Subject:      subject,
					IssuedBefore: now,
					Expires:      now.Add(time.Hour),
					Time:         now,
				}
				if _, err := store.Put(ctx, r.ID(), r, 0); err != nil {
					t.Fatal(err)
				}
			}
			ending, end := context.WithCancel(ctx)
			defer end()
			line := &cut{subject: step.subject, ended: end}
			line.left.Store(step.nth)
			conn, err := natsclient.Connect(
				js.Conn().ConnectedUrl(), "cut", nats.SetCustomDialer(line), nats.NoReconnect(),
			)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			interrupted, err := jetstream.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = restoreTo(ending, interrupted, 1, dir, true, io.Discard)
			if err == nil || line.left.Load() > 0 {
				t.Fatalf("the restore was not interrupted: %v", err)
			}
			if _, err := setup.Check(ctx, js, 1); !errors.Is(err, setup.ErrRestoring) {
				if got, _, err := revocationsIn(ctx, js); err != nil || len(got) != 2 {
					t.Errorf("a node can start with %d revocations: %v", len(got), err)
				}
			}
			if _, _, err := restoreTo(ctx, js, 1, dir, true, io.Discard); err != nil {
				t.Fatal(err)
			}
			if got, sealed, err := revocationsIn(ctx, js); err != nil || len(got) != 2 || sealed != 0 {
				t.Errorf("%d revocations are returned: %v", len(got), err)
			}
			if _, err := setup.Check(ctx, js, 1); err != nil {
				t.Errorf("a node cannot start: %v", err)
			}
			if _, there, err := setup.Retained(ctx, js); there || err != nil {
				t.Errorf("the retained revocations remain: %v", err)
			}
		})
	}
}

func TestRestore_ReportsWhatItTookOverOnlyIfItReplacedData(t *testing.T) {
	taken := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for replaced, want := range map[bool]string{
		true:  "credentials: 3 revocations of tokens were taken over from the replaced data; others that were made",
		false: "credentials: revocations of tokens that were made",
	} {
		got := lostCredentials(taken, replaced, 3)
		if !strings.HasPrefix(got, want+" after 2026-01-31T12:00:00Z are not known") {
			t.Errorf("replaced %v: %s", replaced, got)
		}
	}
}
