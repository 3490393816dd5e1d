package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
)

// under returns an authorization header with a token under the key id.
func (s signer) under(id string) []string {
	return []string{"Bearer " + s.sign(fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, id), with("", ""))}
}

// rotating is a source whose keys change. A read takes a second of the bubble's time.
type rotating struct {
	mu    sync.Mutex
	set   []byte
	err   error
	reads int
}

func (r *rotating) rotate(set []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set, r.err = set, err
}

func (r *rotating) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

func (r *rotating) read(ctx context.Context) ([]byte, error) {
	r.mu.Lock()
	r.reads++
	r.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set, r.err
}

func (s signer) named(t testing.TB, id string) []byte {
	t.Helper()
	return keySet(t, jose.JSONWebKey{Key: s.private.Public(), KeyID: id, Algorithm: "EdDSA"})
}

func TestKeyRing_LeavingCallerDoesNotDelayRotatedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, rotated := newSigner(t), newSigner(t)
		source := &rotating{set: old.named(t, "old")}
		_, verifier := verifierOf(t, source.read)
		source.rotate(rotated.named(t, "rotated"), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := verifier.Authenticate(ctx, time.Now(), old.under("junk")); !errors.Is(err, auth.ErrBadToken) {
			t.Errorf("token under an unknown key: %v", err)
		}
		if waited := time.Since(began); waited != time.Millisecond {
			t.Errorf("the caller waits %v beyond its context", waited)
		}
		if _, err := verifier.Authenticate(t.Context(), time.Now(), rotated.under("rotated")); err != nil {
			t.Errorf("token under the rotated key: %v", err)
		}
		if n := source.count(); n != 2 {
			t.Errorf("the source is read %d times, want once at first and once for both callers", n)
		}
	})
}

func TestKeyRing_JunkTokensDoNotStarveRotatedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, rotated := newSigner(t), newSigner(t)
		source := &rotating{set: old.named(t, "old")}
		_, verifier := verifierOf(t, source.read)
		ctx, cancel := context.WithCancel(t.Context())
		var junk sync.WaitGroup
		for caller := range 4 {
			junk.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					attempt, leave := context.WithTimeout(ctx, 50*time.Millisecond)
					_, _ = verifier.Authenticate(attempt, time.Now(), old.under(fmt.Sprintf("junk-%d-%d", caller, n)))
					leave()
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Minute)
		before := source.count()
		source.rotate(rotated.named(t, "rotated"), nil)
		began := time.Now()
		for {
			if _, err := verifier.Authenticate(t.Context(), time.Now(), rotated.under("rotated")); err == nil {
				break
			}
			if time.Since(began) > 5*time.Second {
				t.Error("the rotated key does not count")
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		junk.Wait()
		if before > 40 {
			t.Errorf("junk tokens caused %d reads within a minute", before)
		}
	})
}

func TestKeyRing_OneUnknownIDCausesOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newSigner(t)
		source := &rotating{set: old.named(t, "old")}
		_, verifier := verifierOf(t, source.read)
		for range 9 {
			_, _ = verifier.Authenticate(t.Context(), time.Now(), old.under("stale"))
			time.Sleep(time.Second)
		}
		if n := source.count(); n != 2 {
			t.Errorf("%d reads, want the initial one and one for the key id", n)
		}
		time.Sleep(time.Minute)
		source.rotate(old.named(t, "stale"), nil) // published late
		if _, err := verifier.Authenticate(t.Context(), time.Now(), old.under("stale")); err != nil {
			t.Errorf("late published key: %v", err)
		}
	})
}

func TestKeyRing_WaitingCallersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newSigner(t)
		release := make(chan struct{})
		first := true
		_, verifier := verifierOf(t, func(ctx context.Context) ([]byte, error) {
			if first {
				first = false
				return old.named(t, "old"), nil
			}
			select {
			case <-release:
				return old.named(t, "old"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		var refused atomic.Int64
		var callers sync.WaitGroup
		for n := range 1000 {
			callers.Go(func() {
				_, _ = verifier.Authenticate(t.Context(), time.Now(), old.under(fmt.Sprint("junk-", n)))
				refused.Add(1)
			})
		}
		synctest.Wait()
		if n := refused.Load(); n != 1000-256 {
			t.Errorf("%d of 1000 callers rejected immediately, want all except 256", n)
		}
		if _, err := verifier.Authenticate(t.Context(), time.Now(), old.under("old")); err != nil {
			t.Errorf("token under a known key waited: %v", err)
		}
		close(release)
		callers.Wait()
	})
}

func TestKeyRing_HangingSourceTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newSigner(t)
		first := true
		ring, _ := verifierOf(t, func(ctx context.Context) ([]byte, error) {
			if first {
				first = false
				return old.named(t, "old"), nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		began := time.Now()
		if err := ring.Refresh(t.Context()); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		// The end of Run ends a read in progress.
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { ring.Run(ctx, func() {}, func(error) {}) })
		time.Sleep(time.Minute + time.Second)
		began = time.Now()
		cancel()
		running.Wait()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Close took %v", waited)
		}
		if err := ring.Refresh(t.Context()); err == nil {
			t.Error("a closed ring reads its source")
		}
	})
}

func TestKeyRing_RunReportsChangesAndFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, rotated := newSigner(t), newSigner(t)
		source := &rotating{set: old.named(t, "old")}
		ring, verifier := verifierOf(t, source.read)
		ctx, cancel := context.WithCancel(t.Context())
		var (
			running           sync.WaitGroup
			changes, failures int
		)
		running.Go(func() { ring.Run(ctx, func() { changes++ }, func(error) { failures++ }) })
		defer running.Wait()
		defer cancel()
		admitted, err := verifier.Authenticate(t.Context(), time.Now(), old.under("old"))
		if err != nil {
			t.Fatal(err)
		}
		both := keySet(t, jose.JSONWebKey{Key: old.private.Public(), KeyID: "old", Algorithm: "EdDSA"},
			jose.JSONWebKey{Key: rotated.private.Public(), KeyID: "rotated", Algorithm: "EdDSA"})
		for _, step := range []struct {
			what              string
			set               []byte
			err               error
			revoked           bool
			changes, failures int
		}{
			{"unchanged list", old.named(t, "old"), nil, false, 0, 0},
			{"added key", both, nil, false, 1, 0},
			{"the source is unreachable", both, errors.New("away"), false, 1, 1},
			{"the set is unsafe", []byte("{}"), nil, false, 1, 2},
			{"key id of another key", rotated.named(t, "old"), nil, true, 2, 2},
			{"the key is back", old.named(t, "old"), nil, true, 3, 2},
		} {
			source.rotate(step.set, step.err)
			time.Sleep(time.Minute + 2*time.Second)
			synctest.Wait()
			if verifier.Revoked(admitted) != step.revoked || changes != step.changes || failures != step.failures {
				t.Errorf("%s: revoked %t, %d changes, %d failures; want %+v", step.what, verifier.Revoked(admitted),
					changes, failures, step)
			}
		}
	})
}

func TestKeyRing_RotatesWithoutRestart(t *testing.T) {
	old, rotated := newSigner(t), newSigner(t)
	var set atomic.Pointer[[]byte]
	server := httptest.NewServer(
		contextkit.HTTPMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if rc, ok := contextkit.FromContext(r.Context()); !ok || rc.Traceparent.IsZero() {
				t.Error("keys are fetched without a trace")
			}
			_, _ = w.Write(*set.Load())
		})),
	)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "jwks.json")
	publish := func(document []byte) {
		set.Store(&document)
		if err := os.WriteFile(path, document, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, source := range map[string]auth.Source{"URL": auth.URL(server.URL, nil), "file": auth.File(path)} {
		t.Run(name, func(t *testing.T) {
			publish(old.named(t, "old"))
			keys, verifier := verifierOf(t, source)
			use := func(header []string) error {
				_, err := verifier.Authenticate(t.Context(), time.Now(), header)
				return err
			}
			oldToken, newToken := old.under("old"), rotated.under("rotated")
			if err := use(oldToken); err != nil {
				t.Fatalf("before: %v", err)
			}
			publish(rotated.named(t, "rotated"))
			if err := use(newToken); err != nil {
				t.Errorf("the new key does not count immediately: %v", err)
			}
			if err := use(oldToken); !errors.Is(err, auth.ErrBadToken) {
				t.Errorf("the revoked key counts, although its token was verified before: %v", err)
			}
			publish([]byte("broken"))
			if err := keys.Refresh(t.Context()); err == nil || use(newToken) != nil {
				t.Errorf("malformed key set: %v; keys in use: %v, want them retained", err, use(newToken))
			}
			publish(make([]byte, 2<<20))
			if err := keys.Refresh(t.Context()); err == nil {
				t.Error("a key set of 2 MiB is read")
			}
		})
	}
}

// What a key server answers with an error is no key set, even if it reads like one.
func TestURL_OnlyASuccessIsADocument(t *testing.T) {
	set := newSigner(t).named(t, "key")
	for _, status := range []int{
		http.StatusOK, http.StatusNotFound, http.StatusInternalServerError, http.StatusAccepted,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(set)
		}))
		data, err := auth.URL(server.URL, nil)(t.Context())
		http.DefaultClient.CloseIdleConnections()
		server.Close()
		if ok := err == nil && bytes.Equal(data, set); ok != (status == http.StatusOK) {
			t.Errorf("status %d: %d bytes, %v", status, len(data), err)
		}
	}
}

// A key ring that has ended reads nothing more.
func TestKeyRing_EndedReadsNothing(t *testing.T) {
	reads, set := 0, newSigner(t).named(t, "key")
	ring, err := auth.OpenKeyRing(t.Context(), func(context.Context) ([]byte, error) { reads++; return set, nil })
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	ring.Run(ended, func() {}, func(error) {})
	if err := ring.Refresh(t.Context()); err == nil || reads != 1 {
		t.Errorf("%v, after %d reads", err, reads)
	}
}

// A key's id has as many bytes as a token's may have.
func TestKeyRing_LongestKeyIDIsAccepted(t *testing.T) {
	for length, want := range map[int]bool{1: true, 256: true, 257: false} {
		set := newSigner(t).named(t, strings.Repeat("k", length))
		if _, err := auth.OpenKeyRing(
			t.Context(), func(context.Context) ([]byte, error) { return set, nil },
		); (err == nil) != want {
			t.Errorf("kid of %d bytes: %v", length, err)
		}
	}
}
