package fleet

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/token"
)

// tokenKinds are the kinds of nodes that issue, read or pass on tokens. Others announce
// themselves too: services that are not part of the platform and handle no tokens.
var tokenKinds = []string{"gateway", "aggregate", "projection", "runner", "control"}

// TokenVersion returns the newest version of tokens that every one of the nodes reads.
func TokenVersion(nodes []Node) int {
	version := token.Newest
	for _, n := range nodes {
		if slices.Contains(tokenKinds, n.Kind) {
			version = min(version, n.Tokens)
		}
	}
	return version
}

// FollowTokens sets the gate to the newest version of tokens that every announced node reads,
// until ctx ends. When nodes cannot be followed, failed is called and the gate does not change.
func FollowTokens(ctx context.Context, js jetstream.JetStream, gate *token.Gate, failed func(error)) {
	FollowNodes(ctx, js, Follower{
		Each: func(fleet Fleet) { gate.Set(TokenVersion(fleet.Nodes)) }, Failed: failed,
	})
}
