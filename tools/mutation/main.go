// Command mutation changes one place of a package at a time and runs the package's tests: a change that no test
// notices (a survivor) shows a rule that no test holds. It changes statements that tests cover: comparisons and
// boundaries, logic, arithmetic, conditions of guards, constants, minimum and maximum, returned errors, and
// statements, which it removes. Sources are not touched: mutants are overlays of the go command.
//
//	go run ./mutation -time 5m ../gateway/breaker ../gateway/limit
//
// It ends after the given time; mutants are tried in random order, so that a short run samples all of a package. It
// exits with 1 if a mutant survives that the file of known survivors does not list.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	budget := flag.Duration("time", 10*time.Minute, "time for all packages")
	only := flag.String("file", "", "regular expression of the files to change")
	skip := flag.String("skip", `\b[lL]og\b|\.Msg\(|\.Inc\(\)|\.Observe\(|\.WithLabelValues\(|MustRegister|panic\(`,
		"regular expression of source lines to leave out")
	seed := flag.Uint64("seed", 1, "seed of the order")
	known := flag.String("known", "",
		"file with a known survivor per line, as this command prints them, and its reason")
	short := flag.Bool("short", false, "run the tests with -short")
	run := flag.String("run", "", "run these tests alone")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *budget)
	defer cancel()
	r := runner{
		only:  regexp.MustCompile(*only),
		skip:  regexp.MustCompile(*skip),
		seed:  *seed,
		short: *short,
		run:   *run,
	}
	if err := r.readKnown(*known); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for _, dir := range flag.Args() {
		if err := r.mutate(ctx, dir); err != nil {
			fmt.Fprintln(os.Stderr, dir+":", err)
			os.Exit(2)
		}
	}
	fmt.Printf("%d mutants killed, %d survived (%d of them known), %d did not compile, %d not tried for lack of time\n",
		r.killed, r.survived, r.expected, r.invalid, r.left)
	if r.survived > r.expected {
		os.Exit(1)
	}
}

// runner tries mutants and counts how they end.
type runner struct {
	only, skip *regexp.Regexp
	seed       uint64
	short      bool
	run        string
	known      map[string]bool

	killed, survived, expected, invalid, left int
}

// readKnown reads the known survivors: lines that begin with "- `file: change`".
func (r *runner) readKnown(path string) error {
	r.known = map[string]bool{}
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if _, rest, ok := strings.Cut(scanner.Text(), "- `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			r.known[name] = true
		}
	}
	return nil
}

// mutate tries the mutants of the package in a directory.
func (r *runner) mutate(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	began := time.Now()
	profile := filepath.Join(work, "cover")
	if out, err := r.test(ctx, dir, "-coverprofile="+profile); err != nil {
		return fmt.Errorf("the tests fail without a change: %w\n%s", err, out)
	}
	took := time.Since(began)
	covered, err := coverage(profile)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	var all []mutant
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || !r.only.MatchString(path) {
			continue
		}
		found, err := mutants(path)
		if err != nil {
			return err
		}
		for _, m := range found {
			if (m.constant || covered.has(path, m.line)) && !r.skip.MatchString(m.source) {
				all = append(all, m)
			}
		}
	}
	random := rand.New(rand.NewPCG(r.seed, 1))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	fmt.Printf("%s: %d mutants, tests take %v\n", dir, len(all), took.Round(100*time.Millisecond))
	for i, m := range all {
		if err := r.try(ctx, dir, work, took, m); err != nil {
			return err
		}
		if ctx.Err() != nil {
			r.left += len(all) - i
			return nil
		}
	}
	return nil
}

// try runs the tests over one mutant.
func (r *runner) try(ctx context.Context, dir, work string, took time.Duration, m mutant) error {
	changed, overlay := filepath.Join(work, "mutant.go"), filepath.Join(work, "overlay.json")
	if err := os.WriteFile(changed, m.text, 0o600); err != nil {
		return err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {m.path: changed}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return err
	}
	out, err := r.test(ctx, dir, "-overlay="+overlay, "-failfast",
		fmt.Sprintf("-timeout=%v", max(10*time.Second, 3*took)))
	switch {
	case ctx.Err() != nil:
	case err == nil:
		r.survived++
		name := filepath.Base(dir) + "/" + m.String()
		note := ""
		if r.known[name] {
			r.expected++
			note = " (known)"
		}
		fmt.Printf("survived%s: %s:%d: %s\n", note, m.path, m.line, name)
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		r.invalid++
	default:
		r.killed++
	}
	return nil
}

func (r *runner) test(ctx context.Context, dir string, flags ...string) ([]byte, error) {
	args := append([]string{"test", "-vet=off", "-count=1"}, flags...)
	if r.short {
		args = append(args, "-short")
	}
	if r.run != "" {
		args = append(args, "-run", r.run)
	}
	command := exec.CommandContext(ctx, "go", append(args, ".")...)
	command.Dir = dir
	return command.CombinedOutput()
}

// blocks are the covered lines of files, by their base names.
type blocks map[string]map[int]bool

func (b blocks) has(path string, line int) bool { return b[filepath.Base(path)][line] }

// coverage reads a profile of covered statements.
func coverage(path string) (blocks, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	covered := blocks{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
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
