package audit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

func TestRecorder_OperatorsCallsAreAdmittedAtARate(t *testing.T) {
	recorder := audit.NewRecorder(natstest.Start(t), prometheus.NewRegistry(), zerolog.Nop())
	synctest.Test(t, func(t *testing.T) {
		admitted := func(class backbone.AuditClass, principal string) (n int) {
			for range 10_000 {
				if _, ok := recorder.Admit(class, principal); ok {
					n++
				}
			}
			return n
		}
		for _, step := range []struct {
			what      string
			class     backbone.AuditClass
			principal string
			want      int
		}{
			{"reads of a hot principal", backbone.AuditRead, "hot", 200},
			{"its writes", backbone.AuditOperator, "hot", 2000},
			{"reads of another principal", backbone.AuditRead, "other", 200},
		} {
			if n := admitted(step.class, step.principal); n != step.want {
				t.Errorf("%s: %d of 10,000 are admitted, want %d", step.what, n, step.want)
			}
		}
		time.Sleep(time.Second)
		if n := admitted(backbone.AuditRead, "hot"); n != 10 {
			t.Errorf("%d reads are admitted after a second, want 10", n)
		}
		if n := testing.AllocsPerRun(100, func() { recorder.Admit(backbone.AuditRead, "hot") }); n != 0 {
			t.Errorf("%v objects per call", n)
		}
	})
}
