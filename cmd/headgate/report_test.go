package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// reportVariable names the directory that the reports of long runs are written to.
const reportVariable = "HEADGATE_REPORT"

// inflictedFault is a fault of a run, with times since its begin.
type inflictedFault struct {
	Fault string        `json:"fault"`
	Begin time.Duration `json:"begin_ns"`
	End   time.Duration `json:"end_ns"`
}

// latencies are percentiles of the times that operations took until they were answered, attempts included.
type latencies struct {
	Operations int           `json:"operations"`
	Attempts   int           `json:"attempts"`
	P50        time.Duration `json:"p50_ns"`
	P95        time.Duration `json:"p95_ns"`
	P99        time.Duration `json:"p99_ns"`
	Max        time.Duration `json:"max_ns"`
}

// report is the result of a long run.
type report struct {
	Test       string               `json:"test"`
	Passed     bool                 `json:"passed"`
	Commit     string               `json:"commit"`
	Seed       uint64               `json:"seed"`
	Took       time.Duration        `json:"took_ns"`
	Operations int                  `json:"operations"`
	Wallets    int                  `json:"wallets"` // each is a history that is checked by itself
	Outcomes   map[outcome]int      `json:"outcomes"`
	Latencies  map[string]latencies `json:"latencies"` // by kind of operation
	Faults     []inflictedFault     `json:"faults"`
	Stale      staleReads           `json:"stale"`
	StaleBound time.Duration        `json:"stale_bound_ns"`
}

// report completes a report with the history's figures, and writes it and the history to the directory that the
// environment names, if it does.
func (h *history) report(t *testing.T, r report) {
	t.Helper()
	if os.Getenv(reportVariable) == "" {
		return
	}
	dir := historyDir(t)
	h.write(t, dir)
	r.Test, r.Passed, r.Took = t.Name(), !t.Failed(), h.now()
	r.Wallets, r.Operations, r.Outcomes, r.Latencies = len(
		h.wallets(),
	), len(h.operations), map[outcome]int{}, map[string]latencies{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				r.Commit = s.Value
			}
		}
	}
	took, attempts := map[string][]time.Duration{}, map[string]int{}
	for _, o := range h.operations {
		r.Outcomes[o.Outcome]++
		took[string(o.Kind)] = append(took[string(o.Kind)], o.Return-o.Call)
		attempts[string(o.Kind)] += o.Attempts
	}
	for kind, all := range took {
		slices.Sort(all)
		at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100] }
		r.Latencies[kind] = latencies{
			Operations: len(all),
			Attempts:   attempts[kind],
			P50:        at(50),
			P95:        at(95),
			P99:        at(99),
			Max:        at(100),
		}
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"report.json": string(text) + "\n", "report.md": r.markdown()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("report: %s", dir)
}

// markdown returns the report for readers.
func (r report) markdown() string {
	var out strings.Builder
	result := "passed"
	if !r.Passed {
		result = "FAILED"
	}
	fmt.Fprintf(&out, "# %s: %s\n\n", r.Test, result)
	fmt.Fprintf(&out, "Seed %d, commit %s, %v, %d operations on %d wallets, %d faults.\n\n", r.Seed, r.Commit,
		r.Took.Round(time.Second), r.Operations, r.Wallets, len(r.Faults))
	fmt.Fprintf(
		&out,
		"Reads of states and refusals: %d, of which %d were answered from a state that had been replaced, "+
			"for %v at most (bound: %v).\n\n",
		r.Stale.Checked, r.Stale.Stale, r.Stale.Oldest.Round(time.Millisecond), r.StaleBound,
	)
	out.WriteString("| outcome | operations |\n|---|---|\n")
	for _, o := range []outcome{outcomeAnswered, outcomeRejected, outcomeVersion, outcomeUnknown} {
		fmt.Fprintf(&out, "| %s | %d |\n", o, r.Outcomes[o])
	}
	out.WriteString("\n| operation | number | attempts | p50 | p95 | p99 | max |\n|---|---|---|---|---|---|---|\n")
	for _, k := range []kind{kindOpen, kindDeposit, kindWithdraw, kindState, kindQuery} {
		l := r.Latencies[string(k)]
		fmt.Fprintf(
			&out, "| %s | %d | %d | %v | %v | %v | %v |\n", k, l.Operations, l.Attempts,
			l.P50.Round(time.Microsecond*100), l.P95.Round(time.Microsecond*100), l.P99.Round(time.Microsecond*100),
			l.Max.Round(time.Millisecond),
		)
	}
	out.WriteString("\n| fault | begin | end |\n|---|---|---|\n")
	for _, f := range r.Faults {
		fmt.Fprintf(&out, "| %s | %v | %v |\n", f.Fault, f.Begin.Round(time.Millisecond), f.End.Round(time.Millisecond))
	}
	return out.String()
}
