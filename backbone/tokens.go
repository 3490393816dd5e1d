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

// ReadSealedTokens reports whether every one of the nodes reads sealed tokens, version 2.
func ReadSealedTokens(nodes []Node) bool {
	return !slices.ContainsFunc(nodes, func(n Node) bool { return n.Tokens < token.Newest && slices.Contains(tokenKinds, n.Kind) })
}

// FollowTokens opens the gate while every announced node reads sealed tokens, and closes it
// while one does not, until ctx ends. When nodes cannot be followed, failed is called and the
// gate does not change.
func FollowTokens(ctx context.Context, js jetstream.JetStream, gate *token.Gate, failed func(error)) {
	for ctx.Err() == nil {
		err := FollowNodes(ctx, js, func(nodes []Node, _ []LostNode) { gate.Set(ReadSealedTokens(nodes)) })
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(tokensAgain):
		}
	}
}
