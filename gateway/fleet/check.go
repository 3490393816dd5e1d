package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/upstream"
)

// NodesAwayError is the error of [Check] when nodes do not answer.
type NodesAwayError struct{ error }

// Check asks nodes once for their services, concurrently. Its error names each node that failed: it is a
// [NodesAwayError] if nodes do not answer, another error if a node has no method with a policy.
func Check(ctx context.Context, nodes []Node, channels upstream.PoolConfig) error {
	a := newAsker(channels)
	defer a.close()
	errs := make([]error, len(nodes))
	var asking sync.WaitGroup
	for i, node := range nodes {
		asking.Go(func() {
			if _, err := a.ask(ctx, node.Endpoint); err != nil {
				errs[i] = fmt.Errorf("node %s (%s) at %s cannot be asked for its services: %w", node.ID, node.Kind,
					node.Endpoint, err)
			}
		})
	}
	asking.Wait()
	switch all := errors.Join(errs...); {
	case all == nil, errors.Is(all, policy.ErrNoPolicy):
		return all
	default:
		return NodesAwayError{all}
	}
}
