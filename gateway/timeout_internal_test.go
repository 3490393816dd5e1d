package gateway

import (
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	_ "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// The lower one of the edge's and of the method's timeout bounds a call at the port for gRPC, also before its message
// has come; without a policy, the edge's does.
func TestBounds_TimeoutOfAProcedureIsTheLowerOne(t *testing.T) {
	table, err := policy.Build(protoregistry.GlobalFiles, transcode.NewCompiler(nil))
	if err != nil {
		t.Fatal(err)
	}
	const query, watch = "/projection.gateway.v1.QueryService/Query", "/projection.gateway.v1.QueryService/Watch"
	for _, c := range []struct {
		edge, stream time.Duration
		procedure    string
		want         time.Duration // policies have 5 s and 1 h
	}{
		{time.Hour, time.Second, query, 5 * time.Second},
		{3 * time.Second, time.Hour, query, 3 * time.Second},
		{time.Second, 2 * time.Hour, watch, time.Hour},
		{time.Hour, 7 * time.Second, watch, 7 * time.Second},
		{time.Hour, time.Second, "/any.Service/Call", time.Hour},
	} {
		g := &Gateway{config: Config{MaxTimeout: c.edge, MaxStreamTimeout: c.stream}}
		g.table.Store(table)
		if got := g.timeout(c.procedure); got != c.want {
			t.Errorf("%s: %v, want %v of %v for calls and %v for streams", c.procedure, got, c.want, c.edge, c.stream)
		}
	}
}
