package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pack is a package whose mutants are tried.
type pack struct {
	config
	dir, name string
	work      string // directory of files that live as long as the run
	results   *results
	mutants   []*mutant
	timeout   time.Duration // of the tests over a mutant
}

// counts are the outcomes of a package's mutants.
type counts struct{ killed, survived, known, left int }

func (c config) open(dir string) (*pack, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(context.Background(), "go", "list", "-C", dir,
		".").Output() //nolint:gosec // the directory is the caller's
	if err != nil {
		return nil, err
	}
	p := &pack{config: c, dir: dir, name: strings.TrimSpace(string(out))}
	if _, short, ok := strings.Cut(
		strings.TrimPrefix(p.name, "github.com/"), "/",
	); ok { // the module is HOST/OWNER/NAME
		_, p.name, _ = strings.Cut(short, "/")
	}
	if p.results, err = openResults(c.state, p.name); err != nil {
		return nil, err
	}
	if p.work, err = os.MkdirTemp("", "mutation"); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pack) close() error { return errors.Join(os.RemoveAll(p.work), p.results.file.Close()) }

func (p *pack) count() counts {
	var n counts
	for _, m := range p.mutants {
		switch p.results.outcomes[m.key()] {
		case killed, invalid:
			n.killed++
		case survived:
			n.survived++
			if p.known[p.title(m)] {
				n.known++
			}
		default:
			n.left++
		}
	}
	return n
}

// title names a mutant in the list of known survivors.
func (p *pack) title(m *mutant) string { return filepath.Base(p.dir) + "/" + m.String() }

// mutate tries the mutants until the context ends.
func (p *pack) mutate(ctx context.Context) error {
	base, err := p.baseline(ctx)
	if err != nil {
		return err
	}
	p.timeout = max(10*time.Second, 3*base.Took)
	if p.mutants, err = p.find(base.Profile); err != nil {
		return err
	}
	if p.fresh {
		clear(p.results.outcomes)
	}
	var open []*mutant
	for _, m := range p.mutants {
		if o := p.results.outcomes[m.key()]; o != killed && o != invalid {
			open = append(open, m)
		}
	}
	random := rand.New(rand.NewPCG(p.seed, 1)) //nolint:gosec // an order, not a secret
	random.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	slices.SortStableFunc(open, func(a, b *mutant) int { // survivors first
		return strings.Compare(string(p.results.outcomes[b.key()]), string(p.results.outcomes[a.key()]))
	})
	fmt.Printf("%s: %d mutants, %d to try; tests take %v\n", p.name, len(p.mutants), len(open),
		base.Took.Round(100*time.Millisecond))
	if err := p.build(ctx, open); err != nil || ctx.Err() != nil {
		return err
	}
	for _, m := range open {
		if err := p.try(ctx, m); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil
}

// baseline returns what the tests cover in the unchanged package; it runs them if a file has changed.
func (p *pack) baseline(ctx context.Context) (baseline, error) {
	sum, err := digest(p.dir, p.tests()...)
	if err != nil {
		return baseline{}, err
	}
	if stored, ok := readBaseline(p.state, sum); ok {
		return stored, nil
	}
	profile := filepath.Join(p.work, "cover")
	command := exec.CommandContext(
		ctx, "go", append([]string{"test", "-vet=off", "-count=1", "-coverprofile=" + profile, "."}, p.tests()...)...,
	) //nolint:gosec // the flags are this program's own
	command.Dir = p.dir
	out, err := command.CombinedOutput()
	if err != nil {
		return baseline{}, fmt.Errorf("the tests fail without a change: %w\n%s", err, out)
	}
	text, err := os.ReadFile(profile)
	if err != nil {
		return baseline{}, err
	}
	b := baseline{Profile: string(text)}
	if found := regexp.MustCompile(`(?m)^ok\s+\S+\s+(\S+)`).FindSubmatch(out); found != nil {
		b.Took, _ = time.ParseDuration(string(found[1]))
	}
	return b, b.store(p.state, sum)
}

// tests are the flags that select tests.
func (p *pack) tests() []string {
	var flags []string
	if p.short {
		flags = append(flags, "-test.short")
	}
	if p.run != "" {
		flags = append(flags, "-test.run="+p.run)
	}
	return flags
}

// find returns the mutants that tests cover.
func (p *pack) find(profile string) ([]*mutant, error) {
	covered, err := coverage(profile)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(p.dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var all []*mutant
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || !p.only.MatchString(filepath.Base(path)) {
			continue
		}
		found, err := mutants(path)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			if (m.constant || covered.has(path, m.line)) && !p.skip.MatchString(m.source) {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// build compiles one binary with the mutants that can be switched. A mutant that does not compile as a switch gets a
// separate binary.
func (p *pack) build(ctx context.Context, all []*mutant) error {
	for i, m := range all {
		m.number = i + 1
	}
	for ctx.Err() == nil {
		byFile, replace := map[string][]*mutant{}, map[string]string{}
		for _, m := range all {
			if m.form.before != "" {
				byFile[m.path] = append(byFile[m.path], m)
			}
		}
		if len(byFile) == 0 {
			return nil
		}
		var name string
		for path, of := range byFile {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			slices.SortFunc(of, func(a, b *mutant) int { return a.place - b.place })
			replace[path] = filepath.Join(p.work, filepath.Base(path))
			if err := os.WriteFile(replace[path], []byte(enclose(text, of)), 0o600); err != nil {
				return err
			}
			if found := regexp.MustCompile(`(?m)^package (\w+)`).FindSubmatch(text); found != nil {
				name = string(found[1])
			}
		}
		added := filepath.Join(p.dir, "mutation_switches.go")
		replace[added] = filepath.Join(p.work, "mutation_switches.go")
		if err := os.WriteFile(replace[added], fmt.Appendf(nil, switchFile, name), 0o600); err != nil {
			return err
		}
		out, err := p.compile(ctx, "switched", replace)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		removed := 0
		for _, found := range regexp.MustCompile(`(?m)(\w+\.go):(\d+):\d+: `).FindAllSubmatch(out, -1) {
			line, _ := strconv.Atoi(string(found[2]))
			for _, m := range all {
				if m.form.before != "" && m.line == line && filepath.Base(m.path) == string(found[1]) {
					m.form, removed = form{}, removed+1
				}
			}
		}
		if removed == 0 {
			return fmt.Errorf("the switched package does not compile: %s", out)
		}
	}
	return nil
}

// compile compiles the package's test binary with files replaced.
func (p *pack) compile(ctx context.Context, name string, replace map[string]string) ([]byte, error) {
	overlay := filepath.Join(p.work, name+".json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-gcflags=-e", "-overlay="+overlay, "-o",
		filepath.Join(p.work, name), ".") //nolint:gosec // the flags are this program's own
	command.Dir = p.dir
	return command.CombinedOutput()
}

// try runs the tests over one mutant.
func (p *pack) try(ctx context.Context, m *mutant) error {
	name, number := "switched", m.number
	if m.form.before == "" {
		name, number = "single", 0
		changed := filepath.Join(p.work, "mutant.go")
		if err := os.WriteFile(changed, m.text, 0o600); err != nil {
			return err
		}
		if _, err := p.compile(ctx, name, map[string]string{m.path: changed}); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return p.results.store(m, invalid)
		}
	}
	command := exec.CommandContext(
		ctx, filepath.Join(p.work, name), append(p.tests(), "-test.failfast", "-test.timeout="+p.timeout.String())...,
	) //nolint:gosec // a binary that this program has built
	command.Dir, command.Env = p.dir, append(os.Environ(), activeVariable+"="+strconv.Itoa(number))
	command.WaitDelay = time.Second
	_, err := command.CombinedOutput()
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return p.results.store(m, killed)
	}
	note := ""
	if p.known[p.title(m)] {
		note = " (known)"
	}
	fmt.Printf("survived%s: %s:%d: %s\n", note, m.path, m.line, p.title(m))
	return p.results.store(m, survived)
}

// blocks are the covered lines of files, by their base names.
type blocks map[string]map[int]bool

func (b blocks) has(path string, line int) bool { return b[filepath.Base(path)][line] }

// coverage reads a profile of covered statements.
func coverage(profile string) (blocks, error) {
	covered := blocks{}
	for _, line := range strings.Split(strings.TrimSpace(profile), "\n")[1:] {
		// PATH:LINE.COLUMN,LINE.COLUMN STATEMENTS COUNT
		file, rest, _ := strings.Cut(line, ":")
		fields := strings.FieldsFunc(rest, func(c rune) bool { return strings.ContainsRune(",. ", c) })
		if len(fields) != 6 {
			return nil, errors.New("the coverage profile has the line " + strconv.Quote(line))
		}
		from, _ := strconv.Atoi(fields[0])
		to, _ := strconv.Atoi(fields[2])
		if fields[5] == "0" {
			continue
		}
		name := filepath.Base(file)
		if covered[name] == nil {
			covered[name] = map[int]bool{}
		}
		for n := from; n <= to; n++ {
			covered[name][n] = true
		}
	}
	return covered, nil
}
