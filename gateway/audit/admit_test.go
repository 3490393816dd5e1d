package audit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natstest"
)

func TestRecorder_OperatorsCallsAreRateLimited(t *testing.T) {
	recorder := audit.NewRecorder(natstest.Start(t), prometheus.NewRegistry(), zerolog.Nop())
	synctest.Test(t, func(t *testing.T) {
		admitted := func(class auditlog.Class, principal string) (n int) {
			for range 10_000 {
				if _, ok := recorder.Admit(class, principal); ok {
					n++
				}
			}
			return n
		}
		for _, step := range []struct {
			what      string
			class     auditlog.Class
			principal string
			want      int
		}{
			{"reads of a hot principal", auditlog.ClassRead, "hot", 200},
			{"its writes", auditlog.ClassOperator, "hot", 2000},
			{"reads of another principal", auditlog.ClassRead, "other", 200},
		} {
			if n := admitted(step.class, step.principal); n != step.want {
				t.Errorf("%s: %d of 10,000 are admitted, want %d", step.what, n, step.want)
			}
		}
		time.Sleep(time.Second)
		if n := admitted(auditlog.ClassRead, "hot"); n != 10 {
			t.Errorf("%d reads admitted after one second, want 10", n)
		}
		if n := admitted(auditlog.ClassOperator, "hot"); n != 100 {
			t.Errorf("%d writes admitted after one second, want 100", n)
		}
		if n := testing.AllocsPerRun(100, func() { recorder.Admit(auditlog.ClassRead, "hot") }); n != 0 {
			t.Errorf("%v objects per call", n)
		}
	})
}
