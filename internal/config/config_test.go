package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/config"
)

type settings struct {
	Listen string        `yaml:"listen"`
	Wait   time.Duration `yaml:"wait"`
	Limits struct {
		Rate  float64 `yaml:"rate"`
		Calls int     `yaml:"calls"`
	} `yaml:"limits"`
	Nodes []struct {
		ID string `yaml:"id"`
	} `yaml:"nodes"`
}

func TestParse_MistakesHaveTheirLine(t *testing.T) {
	for name, rule := range map[string]struct{ text, want string }{
		"no such setting":    {"listen: x\nlistne: y\n", `s.yaml:2: there is no setting "listne" here`},
		"nested":             {"limits:\n  rate: 1\n  rat: 2\n", `s.yaml:3: there is no setting "rat" here`},
		"a word for a time":  {"wait: soon\n", `s.yaml:1: "soon" is not a time such as 250ms`},
		"a word for a count": {"limits:\n  calls: many\n", `s.yaml:2: "many" is not a whole number`},
		"a text for a list":  {"nodes: one\n", `s.yaml:1: "one" is not a list`},
		"a list for text":    {"listen: [a]\n", `s.yaml:1: "" is not text`},
		"no YAML":            {"listen: [a\n", `s.yaml:1: `},
		"twice":              {"listen: a\nlisten: b\n", `s.yaml:2: `},
	} {
		var s settings
		if _, err := config.Parse("s.yaml", []byte(rule.text), &s); err == nil ||
			!strings.Contains(err.Error(), rule.want) {
			t.Errorf("%s: %v, want %s", name, err, rule.want)
		}
	}
}

func TestParse_WrongValueIsLocated(t *testing.T) {
	var s settings
	file, err := config.Parse("s.yaml",
		[]byte("listen: x\nlimits:\n  calls: 3\n\n  rate: -1\nnodes:\n- id: a\n- id: a\n"), &s)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []struct {
		section string
		err     error
		want    string
	}{
		{"limits", config.AtLeast("rate", s.Limits.Rate, 0), "s.yaml:5: limits.rate: is -1, want at least 0"},
		{"limits", config.Within("calls", s.Limits.Calls, 4, 9), "s.yaml:3: limits.calls: is 3, want 4 to 9"},
		{"nodes", config.Wrong("1.id", "is taken"), "s.yaml:8: nodes.1.id: is taken"},
		{"wait", config.Wrong("unit", "is missing"), "s.yaml:1: wait.unit: is missing"},
		{
			"limits", errors.Join(config.AtLeast("calls", 3, 0), config.Wrong("burst", "is missing")),
			"s.yaml:2: limits.burst: is missing",
		},
		{"nodes", errors.New("of another kind"), "of another kind"},
	} {
		if got := file.Locate(config.Inside(rule.section, rule.err)); got == nil || got.Error() != rule.want {
			t.Errorf("%v, want %s", got, rule.want)
		}
	}
	if file.Locate(nil) != nil || file.Locate(config.AtLeast("rate", 1, 0)) != nil {
		t.Error("what is right is an error")
	}
}

func TestParse_OmittedSettingsKeepDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(path, []byte("wait: 5s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings{Listen: "default"}
	if _, err := config.Read(path, &s); err != nil || s.Listen != "default" || s.Wait != 5*time.Second {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := config.Read(path+".none", &s); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := config.Parse("empty", nil, &s); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestFile_SetNamesSettingsWithValues(t *testing.T) {
	t.Setenv("EMPTY", "")
	var into any
	file, err := config.Parse(
		"x.yaml",
		[]byte(
			"a: &a {b: 1, c: \"\", d: ~}\nl: [x, y]\nm: []\ncopy: *a\nmerged: {<<: *a, e: false}\nboth: {<<: [*a, "+
				"{f: 2}]}\nenv: ${EMPTY}\n",
		),
		&into,
	)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(file.Set(), " "), "a.b l copy.b merged.b merged.e both.b both.f"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if file, err = config.Parse("empty.yaml", nil, &into); err != nil || len(file.Set()) > 0 {
		t.Errorf("an empty file sets %v (%v)", file.Set(), err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("listen: x\nlimits: {rate: 1}\n"))
	f.Add([]byte("- a\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var s settings
		file, err := config.Parse("s.yaml", data, &s)
		if err == nil {
			_ = file.Locate(config.Wrong("limits.rate", "x"))
		}
		_, _ = config.Keys(data)
	})
}

func TestParse_ExpandsEnvironmentVariables(t *testing.T) {
	t.Setenv("HEADGATE_TEST_HOST", `a"b: c`)
	var s settings
	if _, err := config.Parse("s.yaml", []byte("listen: \"${HEADGATE_TEST_HOST}:80\"\n"), &s); err != nil ||
		s.Listen != `a"b: c:80` {
		t.Errorf("%q, %v", s.Listen, err)
	}
	_, err := config.Parse("s.yaml", []byte("limits: {rate: 1}\nlisten: ${HEADGATE_TEST_NONE}\n"), &s)
	if err == nil || err.Error() != "s.yaml:2: the environment has no HEADGATE_TEST_NONE" {
		t.Errorf("a variable that is not set: %v", err)
	}
}
