package kv_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestSharedSecret_IsOneForAllNodesAndNeverADamagedOne(t *testing.T) {
	js := natstest.Start(t)
	first, err := kv.SharedSecret(t.Context(), js, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := kv.SharedSecret(t.Context(), js, "tokens"); err != nil || !bytes.Equal(again, first) {
		t.Errorf("secrets of two nodes differ, %v", err)
	}
	bucket, err := js.KeyValue(t.Context(), streams.BucketSecrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"", "short", strings.Repeat("x", 33)} {
		if _, err := bucket.Put(t.Context(), "tokens", []byte(damaged)); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.SharedSecret(t.Context(), js, "tokens"); err == nil ||
			!strings.Contains(err.Error(), `the secret "tokens" in bucket `+streams.BucketSecrets) {
			t.Errorf("a secret of %d bytes: %v", len(damaged), err)
		}
	}
	if err := bucket.Delete(t.Context(), "tokens"); err != nil {
		t.Fatal(err)
	}
	if fresh, err := kv.SharedSecret(t.Context(), js, "tokens"); err != nil || bytes.Equal(fresh, first) {
		t.Errorf("after the key was deleted: %v", err)
	}
}

func TestSecret_IsSharedByAllNodes(t *testing.T) {
	js := natstest.Start(t)
	first, err := kv.SharedSecret(t.Context(), js, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	second, err := kv.SharedSecret(t.Context(), js, "tokens")
	if err != nil || string(first) != string(second) || len(first) != 32 {
		t.Fatalf("%x and %x, %v", first, second, err)
	}
}
