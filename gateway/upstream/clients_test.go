package upstream

import (
	"testing"

	"github.com/headgate/headgate/internal/fastpath"
)

// eachClient runs a test over both clients of calls to nodes.
func eachClient(t *testing.T, test func(t *testing.T, config PoolConfig)) {
	t.Helper()
	for _, path := range []fastpath.Path{fastpath.Fast, fastpath.Plain} {
		t.Run(string(path), func(t *testing.T) {
			test(t, PoolConfig{FastPaths: fastpath.Paths{Upstream: path}})
		})
	}
}
