package fleet

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/token"
)

// TokenVersion returns the newest version of tokens that every one of the nodes reads. Nodes of other kinds than the
// platform's are not asked: they issue, read and pass on no tokens.
func TokenVersion(nodes []Node) int {
	version := token.Newest
	for _, n := range nodes {
		if n.Kind.Platform() {
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
