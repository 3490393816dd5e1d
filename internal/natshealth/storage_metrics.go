package natshealth

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/streams"
)

// StorageStreams returns the streams whose state is a metric.
func StorageStreams() (names []string) {
	for _, config := range slices.Concat(streams.Streams(), streams.Buckets()) {
		names = append(names, config.Name)
	}
	return names
}

var streamWritable = prometheus.NewDesc(
	"headgate_stream_writable",
	"1 while the stream stores the messages of this process, as far as known; 0 while its disk is full, or it "+
		"refuses messages for another reason.",
	[]string{"stream"},
	nil,
)

// Describe implements [prometheus.Collector].
func (s *Storage) Describe(descriptions chan<- *prometheus.Desc) {
	s.refused.Describe(descriptions)
	descriptions <- streamWritable
}

// Collect implements [prometheus.Collector].
func (s *Storage) Collect(metrics chan<- prometheus.Metric) {
	s.refused.Collect(metrics)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stream := range StorageStreams() {
		writable := 1.0
		if f := s.failing[stream]; s.declared[stream] != nil || f != nil && f.counts {
			writable = 0
		}
		metrics <- prometheus.MustNewConstMetric(streamWritable, prometheus.GaugeValue, writable, stream)
	}
}
