package rpc_test

import (
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
)

func TestProcedureMeter_MeasuresCallsSinceTheLastTime(t *testing.T) {
	m := rpc.NewMetrics("node")
	end := func(procedure string, took time.Duration, err error) {
		calls := m.Calls(procedure)
		calls.Begin()
		calls.End(&rpc.Outcome{
			Started:  time.Now(),
			Took:     took,
			Err:      err,
			Protocol: "grpc",
		},
			connect.StreamTypeUnary, contextkit.TraceID{})
	}
	meter := m.Procedures()
	for range 99 {
		end("/acme.Things/Get", 2*time.Millisecond, nil)
	}
	end("/acme.Things/Get", 400*time.Millisecond, connect.NewError(connect.CodeNotFound, "none"))
	end("/acme.Things/Put", 20*time.Second, nil)
	end("/grpc.health.v1.Health/Check", time.Millisecond, nil)
	want := "[{/acme.Things/Get 100 1 2.5ms 2.5ms 2.5ms} {/acme.Things/Put 1 0 10s 10s 10s}]"
	if got := fmt.Sprint(meter.Measure(5)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := meter.Measure(5); len(got) != 0 {
		t.Errorf("without calls: %v", got)
	}
	end("/acme.Things/Get", 4*time.Millisecond, nil)
	end("/acme.Things/Put", time.Millisecond, nil)
	if got := fmt.Sprint(meter.Measure(1)); got != "[{/acme.Things/Get 1 0 5ms 5ms 5ms}]" {
		t.Errorf("the next time: %s", got)
	}
}
