package rpc

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/fastpath"
)

// newFastPaths returns the gauge of the selected implementations.
func newFastPaths(paths fastpath.Paths) prometheus.Collector {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "headgate_fast_path",
		Help: "The implementation in use, by part (setting fast_paths): 1 the fast one, 0 the plain one.",
	}, []string{"part"})
	for _, choice := range paths.Choices() {
		value := 1.0
		if choice.Path.IsPlain() {
			value = 0
		}
		gauge.WithLabelValues(choice.Part).Set(value)
	}
	return gauge
}
