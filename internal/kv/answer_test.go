package kv_test

import (
	"errors"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// What the server itself has published to a key is no value, in whichever way it is read.
func TestBucket_AnswersOfTheServerAreNoValues(t *testing.T) {
	js := natstest.Start(t)
	ctx := contextkit.PlatformContext(t.Context())
	bucket, err := kv.Open[map[string]any](ctx, js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	for key, answer := range map[string]string{
		"stored":  `{"stream":"KV_nodes","seq":155}`,
		"domain":  `{"stream":"KV_nodes","domain":"a","seq":1,"duplicate":true}`,
		"refused": `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"stream":"KV_nodes","seq":0}`,
		"info":    `{"type":"io.nats.jetstream.api.v1.stream_info_response","total":0}`,
	} {
		if _, err := kv.Put(ctx, js, streams.BucketTenants, key, []byte(answer)); err != nil {
			t.Fatal(err)
		}
		if kept, err := bucket.Get(ctx, key); err == nil || errors.Is(err, kv.ErrNotFound) {
			t.Errorf("%s: %v, %v", key, kept.Value, err)
		}
	}
	if _, err := bucket.Put(ctx, "value", map[string]any{"stream": 1}, 0); err != nil {
		t.Fatal(err)
	}
	all, err := bucket.All(ctx)
	if err != nil || len(all) != 1 || all["value"].Value["stream"] != 1.0 {
		t.Errorf("%v, %v", all, err)
	}
	var keys []string
	if _, err := bucket.Newest(ctx, "*", 0, 100, func(key string, _ kv.Entry[map[string]any]) bool {
		keys = append(keys, key)
		return true
	}); err != nil || len(keys) != 1 || keys[0] != "value" {
		t.Errorf("%q, %v", keys, err)
	}
}
