package main_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each alert has a test of promtool's in which it fires.
func TestAlerts_EachHasATestInWhichItFires(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/headgate.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob("../../deploy/prometheus/*.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	fires := map[string]bool{}
	for _, path := range tests {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(
			`alertname: (\w+)\s+exp_alerts:`,
		).FindAllStringSubmatch(string(text), -1) {
			fires[found[1]] = true
		}
	}
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		if !fires[alert[1]] {
			t.Errorf("%s fires in no test of deploy/prometheus", alert[1])
		}
	}
}

// samples are series with their values, except histograms.
type samples map[string]float64

var sample = regexp.MustCompile(`(?m)^(headgate_[a-z0-9_]+)(?:\{(.*)\})? (\S+)$`)

// scrape returns the series of processes as Prometheus stores them: those of processes that do not
// answer are missing.
func scrape(ctx context.Context, t *testing.T, urls map[string]string) samples {
	t.Helper()
	out := samples{}
	for instance, url := range urls {
		status, text, err := get(ctx, url+"/metrics")
		if err != nil || status != http.StatusOK {
			continue
		}
		for _, found := range sample.FindAllStringSubmatch(text, -1) {
			if strings.HasSuffix(found[1], "_bucket") {
				continue
			}
			value, err := strconv.ParseFloat(found[3], 64)
			if err != nil {
				t.Fatalf("%s: %v", found[0], err)
			}
			labels := fmt.Sprintf("instance=%q", instance)
			if found[2] != "" {
				labels += "," + found[2]
			}
			out[found[1]+"{"+labels+"}"] = value
		}
	}
	return out
}

// fire lets promtool evaluate the rules over the series of real processes: twenty minutes as they
// were before a fault, then forty as they are during it, in which counters continue to grow by what
// they have grown. It fails the test for each alert that does not fire then, or fired before.
func fire(t *testing.T, before, during samples, alerts ...string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	rules, err := filepath.Abs("../../deploy/prometheus/headgate.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(before)
	maps.Copy(all, during)
	text := &strings.Builder{}
	fmt.Fprintf(text, "rule_files: [%q]\nevaluation_interval: 15s\ntests:\n  - interval: 1m\n    input_series:\n",
		rules)
	for _, series := range slices.Sorted(maps.Keys(all)) {
		was, known := before[series]
		is, stays := during[series]
		values := fmt.Sprintf("%gx20", was)
		name, _, _ := strings.Cut(series, "{")
		switch counter := strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_count"); {
		case !stays:
			values += " _x40"
		case !known:
			values = fmt.Sprintf("_x20 %gx40", is)
		case counter && is > was:
			values += fmt.Sprintf(" %g+%gx40", is, is-was)
		default:
			values += fmt.Sprintf(" %gx40", is)
		}
		fmt.Fprintf(text, "      - {series: '%s', values: '%s'}\n", strings.ReplaceAll(series, "'", "''"), values)
	}
	text.WriteString("    promql_expr_test:\n")
	for _, alert := range alerts {
		expr := fmt.Sprintf(`count(ALERTS{alertname="%s",alertstate="firing"}) > bool 0`, alert)
		fmt.Fprintf(text, "      - {expr: '%s', eval_time: 19m}\n", expr)
		fmt.Fprintf(text, "      - {expr: '%s', eval_time: 55m, exp_samples: [{labels: '{}', value: 1}]}\n", expr)
	}
	path := filepath.Join(t.TempDir(), "faults.test.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("not all of %v fire on the series of faulty processes: %s", alerts, output)
	}
}

// The series that real processes export while a node is dead, and while NATS is, let the alerts
// fire: those of a process that was killed leave with it.
func TestAlerts_FireOnDeadProcesses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs every role as a process; other tests cover this under the race detector")
	}
	c := startCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	urls := map[string]string{"gateway": c.admin}
	for _, role := range []string{"aggregate", "projection", "runner"} {
		urls[role] = c.roles[role].listens(t)
	}
	now := func() samples { return scrape(ctx, t, urls) }
	until := func(what, series string, want float64) samples {
		t.Helper()
		var last samples
		if err := eventually(ctx, what, func() (bool, error) {
			last = now()
			for name, value := range last {
				if strings.HasPrefix(name, series) && value == want {
					return true, nil
				}
			}
			return false, nil
		}); err != nil {
			t.Fatal(err)
		}
		return last
	}
	// Control's methods have no node in this cluster: that alert is not of this test.
	healthy := until("the gateway counts the projection",
		`headgate_nodes{instance="gateway",kind="projection",process="gateway",state="ready"}`, 1)

	c.roles["projection"].kill()
	until("the gateway counts the projection as lost",
		`headgate_nodes{instance="gateway",kind="projection",process="gateway",state="lost"}`, 1)
	dead := until("calls of the lost node are rejected", `headgate_kind_degraded{instance="gateway",kind="projection"`,
		1)
	if _, there := dead[`headgate_nats_connected{instance="projection",process="projection"}`]; there {
		t.Fatal("a killed process exports series")
	}
	fire(t, healthy, dead, "HeadgateNodeLost", "HeadgateNodeAway")

	c.roles["projection"].start(t)
	until("the node is back", `headgate_nodes{instance="gateway",kind="projection",process="gateway",state="lost"}`, 0)
	c.nats[0].kill()
	away := until("the gateway has lost NATS", `headgate_nats_connected{instance="gateway"`, 0)
	fire(t, healthy, away, "HeadgateNATSAway")
}

// broken is a model that a command can break: an event with a zero cannot be projected, nor does
// its workflow know whether it applies; the other workflow calls a webhook that nothing answers.
const broken = fragile + `
workflows:
  hopeless:
    on: thing.put
    when: 100 / event.n > 1000
    steps: [{name: never, submit: {aggregate: thing, id: "'never'", command: put, payload: {n: "1"}}}]
  unanswered:
    on: thing.put
    when: event.n == 1
    steps: [{name: call, webhook: {url: "'http://127.0.0.1:1/'", body: {n: event.n}}}]
`

// An event that cannot be applied, work that is given up, and webhooks that fail: the series of a
// real process let the alerts fire.
func TestAlerts_FireOnFailingViewsAndWorkflows(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the whole platform; other tests cover this under the race detector")
	}
	model := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(model, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, t.TempDir(), nil, "--model", model, "--webhook", "127.0.0.1")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	urls := map[string]string{"projection": p.projection, "runner": p.runner, "gateway": p.admin}
	acme := caller{t, p.gateway, "Bearer " + p.tokens["ACME"]}
	var healthy samples
	if err := eventually(ctx, "the views are current", func() (bool, error) {
		healthy = scrape(ctx, t, urls)
		return healthy[`headgate_projection_tenants{instance="projection",process="projection",state="current"}`] == 2, nil
	}); err != nil {
		t.Fatal(err)
	}
	put := func(id string, n int) {
		t.Helper()
		if status, text := acme.post(
			ctx, "/v1/commands/thing/"+id+"/put", fmt.Sprintf(`{"payload":{"n":%d}}`, n),
		); status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
	}
	for i := range 11 {
		put(fmt.Sprint("w", i), 1)
	}
	put("zero", 0)
	var broken samples
	if err := eventually(ctx, "the metrics report the failures", func() (bool, error) {
		broken = scrape(ctx, t, urls)
		failing, stopped, letters := broken[`headgate_workflows_failing{instance="runner",process="runner"}`], broken[`headgate_projection_tenants{instance="projection",process="projection",state="failing"}`], broken[`headgate_dead_letters{instance="runner",process="runner"}`]
		return failing == 11 && stopped == 1 &&
				letters == 1, fmt.Errorf("%v workflows and %v tenants' views fail, %v dead letters", failing, stopped,
				letters)
	}); err != nil {
		t.Fatal(err)
	}
	fire(t, healthy, broken, "HeadgateProjectionFailing", "HeadgateDeadLetters", "HeadgateWorkflowsFailing")
	p.stop(t)
}
