package natstest

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/natshealth"
)

// Lines is a writer that sends each line of a log to its reader.
type Lines chan string

// Write implements [io.Writer].
func (l Lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// Await returns the next line that has text.
func (l Lines) Await(t *testing.T, text string) string {
	t.Helper()
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return line
			}
		case <-t.Context().Done():
			t.Fatalf("no line has %q", text)
		}
	}
}

// Writable returns headgate_stream_writable of a stream.
func Writable(t *testing.T, storage *natshealth.Storage, stream string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(storage)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "headgate_stream_writable" && metric.GetLabel()[0].GetValue() == stream {
				return metric.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no headgate_stream_writable of %s", stream)
	return 0
}
