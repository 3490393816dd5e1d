package fleet

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
)

// maxFleetKinds bounds the kinds of nodes with separate series; the nodes of further kinds
// are counted under otherKinds.
const (
	maxFleetKinds                 = 32
	otherKinds    contextkit.Kind = "other"
)

// Metrics is a [prometheus.Collector] that counts the nodes by kind and state. A process
// that follows the nodes exports it: a node that is killed takes its own series with it.
type Metrics struct{ fleet atomic.Pointer[Fleet] }

// Set puts a newer fleet in the place of the last one, which must not be changed afterwards.
func (m *Metrics) Set(fleet Fleet) { m.fleet.Store(&fleet) }

// nodeState is the state of a node in metrics.
type nodeState string

const (
	nodeReady    nodeState = "ready"
	nodeNotReady nodeState = "not_ready"
	nodeSilent   nodeState = "silent"
	nodeLost     nodeState = "lost"
)

var nodesDesc = prometheus.NewDesc(
	"headgate_nodes",
	"Nodes by kind and state. ready and not_ready: as they announce; silent: without a recent announcement, and not "+
		"known to be lost; lost: became silent without deregistering and do not respond, for a day or until they "+
		"return or are replaced.",
	[]string{"kind", "state"},
	nil,
)

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- nodesDesc }

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	fleet := m.fleet.Load()
	if fleet == nil {
		return
	}
	kinds := map[contextkit.Kind]map[nodeState]int{}
	count := func(kind contextkit.Kind, state nodeState) {
		if kinds[kind] == nil && len(kinds) >= maxFleetKinds {
			kind = otherKinds
		}
		if kinds[kind] == nil {
			kinds[kind] = map[nodeState]int{nodeReady: 0, nodeNotReady: 0, nodeSilent: 0, nodeLost: 0}
		}
		kinds[kind][state]++
	}
	for _, node := range fleet.Nodes {
		switch {
		case !fleet.Silent[node.ID].IsZero():
			count(node.Kind, nodeSilent)
		case node.Ready:
			count(node.Kind, nodeReady)
		default:
			count(node.Kind, nodeNotReady)
		}
	}
	for _, l := range fleet.Lost {
		count(l.Node.Kind, nodeLost)
	}
	for kind, states := range kinds {
		for state, n := range states {
			metrics <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(n), kind.String(),
				string(state))
		}
	}
}
