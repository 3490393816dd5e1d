package backbone

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/backbone/token"
	"github.com/nats-io/nats.go/jetstream"
)

// tokensAgain is the pause before the nodes are followed again after a failure.
const tokensAgain = time.Second

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
	for ctx.Err() == nil {
		err := FollowNodes(ctx, js, func(nodes []Node, _ []LostNode) { gate.Set(TokenVersion(nodes)) })
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(tokensAgain):
		}
	}
}
