package fleet_test

import (
	"context"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/token"
)

func TestTokenVersion_EveryNodeOfThePlatformReadsIt(t *testing.T) {
	node := func(kind contextkit.Kind, tokens int) fleet.Node { return fleet.Node{Kind: kind, Tokens: tokens} }
	for _, tc := range []struct {
		name  string
		nodes []fleet.Node
		want  int
	}{
		{"no node", nil, token.Newest},
		{
			"all",
			[]fleet.Node{
				node(contextkit.KindAggregate, 2), node(contextkit.KindProjection, 2), node(contextkit.KindGateway, 2),
			},
			2,
		},
		{"newer ones", []fleet.Node{node(contextkit.KindAggregate, 2), node(contextkit.KindProjection, 3)}, 2},
		{
			"a node without a version",
			[]fleet.Node{node(contextkit.KindAggregate, 2), node(contextkit.KindProjection, 0)}, 0,
		},
		{
			"a node that reads version 1",
			[]fleet.Node{node(contextkit.KindControl, 1), node(contextkit.KindProjection, 2)}, 1,
		},
		{
			"foreign service", []fleet.Node{node(contextkit.KindProjection, 2), node("orders", 0)},
			2,
		},
		{
			"node of a later version",
			[]fleet.Node{node(contextkit.KindProjection, 3), node(contextkit.KindGateway, 9)}, 3,
		},
	} {
		if got := fleet.TokenVersion(tc.nodes); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestFollowTokens_TheVersionFollowsAnnouncements(t *testing.T) {
	js := natstest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var gate token.Gate
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		fleet.FollowTokens(ctx, js, &gate, func(err error) { t.Error(err) })
	}()
	t.Cleanup(func() { cancel(); <-followed })

	announce := func(id string, tokens int) (leave func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- fleet.Announce(ctx, js, fleet.Node{
				ID:       id,
				Kind:     contextkit.KindProjection,
				Endpoint: "127.0.0.1:1",
				Tokens:   tokens,
			}, func(context.Context, *fleet.Node) error { return nil })
		}()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	until := func(sealed bool, when string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for gate.Sealed() != sealed {
			select {
			case <-deadline:
				t.Fatalf("%s: sealed tokens are issued: %t", when, !sealed)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	leave := announce("new", 2)
	defer leave()
	until(true, "all nodes read version 2")
	leaveOld := announce("old", 0)
	until(false, "a node of an earlier version is announced")
	leaveOld()
	until(true, "the old node is lost")
}
