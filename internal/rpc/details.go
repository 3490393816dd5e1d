package rpc

import (
	"cmp"
	"crypto/x509"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Setting is a setting in use, for operators.
type Setting struct{ Name, Value string }

// Settings returns the server's settings in use. They are listed one by one: what is not listed here, such as a secret
// or a path, is not shown.
func (s *Server) Settings() []Setting {
	c := s.config
	protection := "none"
	if c.TLS != nil {
		protection = "TLS"
		if _, mutual := c.TLS.Certificate(); mutual {
			protection = "mutual TLS"
		}
	}
	memory := "none"
	if limit := debug.SetMemoryLimit(-1); limit < 1<<62 {
		memory = strconv.FormatInt(limit, 10)
	}
	return []Setting{
		{"tls", protection},
		{"max_body_bytes", strconv.Itoa(c.MaxBodyBytes)},
		{"body_timeout", c.BodyTimeout.String()},
		{"min_body_rate", strconv.Itoa(c.MinBodyRate)},
		{"write_timeout", c.WriteTimeout.String()},
		{"shutdown_timeout", c.ShutdownTimeout.String()},
		{"max_streams", strconv.Itoa(c.MaxStreams)},
		{"max_connections", strconv.Itoa(c.MaxConnections)},
		{"max_client_connections", strconv.Itoa(c.MaxClientConnections)},
		{"max_client_streams", strconv.Itoa(c.MaxClientStreams)},
		{"grpc_port", strconv.FormatBool(c.GRPC != "")},
		{"GOMAXPROCS", strconv.Itoa(runtime.GOMAXPROCS(0))},
		{"GOMEMLIMIT", memory},
		{"go", runtime.Version()},
	}
}

// Certificate returns the certificate that the server presents, nil for none.
func (s *Server) Certificate() *x509.Certificate {
	if s.config.TLS == nil {
		return nil
	}
	cert, _ := s.config.TLS.Certificate()
	return cert
}

// ProcedureLoad is the calls of a procedure between two measurements. The duration of a stream is the time for which it
// was open.
type ProcedureLoad struct {
	Procedure     string
	Calls, Errors int64
	// P50, P95 and P99 are the upper ends of the histogram's buckets (headgate_rpc_duration_seconds) that the quantiles
	// are in; of calls beyond the last bucket, its end.
	P50, P95, P99 time.Duration
}

// ProcedureMeter measures the calls of each procedure from the process's histogram, at no cost per call. It is not safe
// for concurrent use.
type ProcedureMeter struct {
	metrics *Metrics
	before  map[string]procedureCounts
}

// procedureCounts are cumulative.
type procedureCounts struct {
	calls, errors int64
	buckets       map[float64]int64 // calls by the upper bound of their duration, in seconds
}

// Procedures returns a meter, whose first measurement covers the calls since the process began.
func (m *Metrics) Procedures() *ProcedureMeter { return &ProcedureMeter{metrics: m} }

// Measure returns the calls since the last measurement, of the procedures with the most, at most a number of them.
// Calls of probes are left out.
func (p *ProcedureMeter) Measure(most int) []ProcedureLoad {
	now := p.metrics.procedureCounts()
	var out []ProcedureLoad
	for name, counts := range now {
		load := counts.since(p.before[name])
		if load.Procedure = name; load.Calls > 0 {
			out = append(out, load)
		}
	}
	p.before = now
	slices.SortFunc(out, func(a, b ProcedureLoad) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Procedure, b.Procedure))
	})
	return out[:min(len(out), most)]
}

// procedureCounts returns the calls of each procedure since the process began.
func (m *Metrics) procedureCounts() map[string]procedureCounts {
	series := make(chan prometheus.Metric)
	go func() {
		m.duration.Collect(series)
		close(series)
	}()
	out := map[string]procedureCounts{}
	for one := range series {
		var written dto.Metric
		if one.Write(&written) != nil {
			continue
		}
		var procedure, code string
		for _, label := range written.GetLabel() {
			switch label.GetName() {
			case "procedure":
				procedure = label.GetValue()
			case "code":
				code = label.GetValue()
			}
		}
		if !counts(procedure) {
			continue
		}
		sum := out[procedure]
		if sum.buckets == nil {
			sum.buckets = map[float64]int64{}
		}
		sum.calls += int64(written.GetHistogram().GetSampleCount())
		if code != "ok" {
			sum.errors += int64(written.GetHistogram().GetSampleCount())
		}
		for _, bucket := range written.GetHistogram().GetBucket() {
			sum.buckets[bucket.GetUpperBound()] += int64(bucket.GetCumulativeCount())
		}
		out[procedure] = sum
	}
	return out
}

// since returns the calls since earlier counts of the procedure.
func (c procedureCounts) since(before procedureCounts) ProcedureLoad {
	load := ProcedureLoad{Calls: c.calls - before.calls, Errors: c.errors - before.errors}
	bounds := make([]float64, 0, len(c.buckets))
	for bound := range c.buckets {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	for _, q := range []struct {
		share  float64
		target *time.Duration
	}{{.5, &load.P50}, {.95, &load.P95}, {.99, &load.P99}} {
		for _, bound := range bounds {
			*q.target = time.Duration(bound * float64(time.Second))
			if float64(c.buckets[bound]-before.buckets[bound]) >= q.share*float64(load.Calls) {
				break
			}
		}
	}
	return load
}
