package rpc_test

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
)

// A node's own calls count, probes of it do not.
func TestMetrics_CountCallsThatAreLoad(t *testing.T) {
	m := rpc.NewMetrics("node")
	var got []bool // whether each failed
	m.Count(func(ended time.Time, took time.Duration, stream, failed bool) {
		if ended.IsZero() || took <= 0 || stream {
			t.Errorf("ended %v, took %v, stream %v", ended, took, stream)
		}
		got = append(got, failed)
	})
	end := func(procedure string, err error) {
		calls := m.Calls(procedure)
		calls.Begin()
		calls.End(&rpc.Outcome{Started: time.Now(), Took: time.Millisecond, Err: err}, connect.StreamTypeUnary,
			contextkit.TraceID{})
	}
	end("/acme.Things/Get", nil)
	end("/grpc.health.v1.Health/Check", nil)
	end("/acme.Things/Get", connect.NewError(connect.CodeInternal, "broken"))
	end("/acme.Things/Get", connect.NewError(connect.CodeNotFound, "none"))
	if len(got) != 3 || got[0] || !got[1] || got[2] {
		t.Errorf("%v", got)
	}
}
