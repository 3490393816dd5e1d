package projection_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/sqlite"
)

// gathered returns the values of the service's series, by name and labels.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			out[family.GetName()+"{"+strings.Join(labels, ",")+
				"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// While a projection cannot apply an event, its target still follows the journal, events wait for it, and metrics
// count and name it as failing.
func TestMetrics_FailingProjectionFallsBehind(t *testing.T) {
	var broken atomic.Bool
	f := start(t, natstest.Start(t), breakingFor(sqlite.In(t.TempDir()), "acme", &broken), model.Wallet)
	f.append(t, "acme", "w", "opened", `{"owner":"Ada"}`)
	until(t, "the event is applied", func() bool {
		now := gathered(t, f.service)
		return now["headgate_projection_tenants{state=current}"] == 2 &&
			now["headgate_projection_checkpoint{generation=shown,tenant=acme}"] == float64(f.sequence["acme"])
	})
	broken.Store(true)
	f.append(t, "acme", "w", "deposited", `{"amount":1}`)
	until(t, "the view fails", func() bool {
		now := gathered(t, f.service)
		return now["headgate_projection_tenants{state=failing}"] == 1 &&
			now["headgate_projection_failing{generation=shown,tenant=acme}"] == 1
	})
	stopped := gathered(t, f.service)["headgate_projection_checkpoint{generation=shown,tenant=acme}"]
	for n := range 5 {
		f.append(t, "acme", "w", "deposited", fmt.Sprintf(`{"amount":%d}`, n+1))
	}
	until(t, "the target is the journal's tail, and events wait", func() bool {
		now := gathered(t, f.service)
		return now["headgate_projection_target{generation=shown,tenant=acme}"] == float64(f.sequence["acme"]) &&
			now["headgate_projection_waiting{generation=shown,tenant=acme}"] >= 1 &&
			now["headgate_projection_waiting_events{}"] >= 1
	})
	now := gathered(t, f.service)
	if now["headgate_projection_checkpoint{generation=shown,tenant=acme}"] != stopped ||
		now["headgate_projection_waiting{generation=shown,tenant=globex}"] != 0 ||
		now["headgate_projection_failing{generation=shown,tenant=globex}"] != 0 {
		t.Errorf("%v", now)
	}
	if now["headgate_views_database_available{}"] != 1 {
		t.Error("a file-based view reports an unresponsive database")
	}
}
