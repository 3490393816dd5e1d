package natsclient_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
)

func TestInContact_NeedsAMajority(t *testing.T) {
	t.Parallel()
	const never, lately, late = 0, natsclient.ElectionTimeout / 4, natsclient.ElectionTimeout + time.Millisecond
	for _, c := range []struct {
		active []time.Duration // of the replicas beside the leader
		want   bool
	}{
		{nil, true},
		{[]time.Duration{lately, lately}, true},
		{[]time.Duration{lately, late}, true},
		{[]time.Duration{never, lately}, true},
		{[]time.Duration{late, late}, false},
		{[]time.Duration{never, never}, false},
		{[]time.Duration{never, late}, false},
		{[]time.Duration{lately, late, late, late}, false},
		{[]time.Duration{lately, lately, late, late}, true},
		{[]time.Duration{late}, false},
	} {
		cluster := &jetstream.ClusterInfo{}
		for _, active := range c.active {
			cluster.Replicas = append(cluster.Replicas, &jetstream.PeerInfo{Active: active})
		}
		if got := natsclient.InContact(cluster); got != c.want {
			t.Errorf("messages of the others %v ago: %v, want %v", c.active, got, c.want)
		}
	}
	if !natsclient.InContact(nil) {
		t.Error("a single server confirms a majority")
	}
}
