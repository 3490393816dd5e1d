// Command mutation changes one place of a package at a time and runs the package's tests: a change that no test
// notices (a survivor) shows a rule that no test holds. It changes statements that tests cover: comparisons and
// boundaries, logic, arithmetic, conditions of guards, constants, minimum and maximum, returned errors, and
// statements, which it removes. Sources are not touched: mutants are overlays of the go command.
//
//	go run ./mutation -time 5m ../gateway/breaker ../gateway/limit
//
// A run ends after the given time per package; mutants are tried in random order, so that a short run samples all of a
// package. The next run continues: it begins with the survivors of the last one and leaves out what was killed, until
// -fresh. It exits with 1 if a mutant survives that the file of known survivors does not list.
//
// Most mutants are switches in one binary, which is linked once; the others (arithmetic, constants, minimum, maximum)
// need a binary each.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	budget := flag.Duration("time", 5*time.Minute, "time per package")
	only := flag.String("file", "", "regular expression of the files to change")
	skip := flag.String("skip", `\b[lL]og\b|\.Msg\(|\.Inc\(\)|\.Observe\(|\.WithLabelValues\(|MustRegister|panic\(`,
		"regular expression of source lines to leave out")
	seed := flag.Uint64("seed", 1, "seed of the order")
	known := flag.String("known", "",
		"file with a known survivor per line, as this command prints them, and its reason")
	short := flag.Bool("short", false, "run the tests with -short")
	run := flag.String("run", "", "run these tests alone")
	fresh := flag.Bool("fresh", false, "forget the outcomes of earlier runs")
	state := flag.String("state", "", "directory of the outcomes (default: in the user's cache)")
	flag.Parse()
	c := config{
		only:  regexp.MustCompile(*only),
		skip:  regexp.MustCompile(*skip),
		seed:  *seed,
		short: *short,
		run:   *run,
		fresh: *fresh,
		state: *state,
	}
	worst, err := c.all(*budget, *known, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(worst)
}

// config selects what is changed and which tests run.
type config struct {
	only, skip *regexp.Regexp
	seed       uint64
	short      bool
	run        string
	fresh      bool
	state      string
	known      map[string]bool
}

// all tries the mutants of packages, prints a table, and returns 1 if a mutant survives that is not known.
func (c config) all(budget time.Duration, known string, dirs []string) (int, error) {
	var err error
	if c.known, err = readKnown(known); err != nil {
		return 0, err
	}
	if c.state == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return 0, err
		}
		c.state = filepath.Join(cache, "headgate-mutation")
	}
	worst, rows := 0, []string{
		"| package | mutants | killed | survived | known | not tried |", "|---|---|---|---|---|---|",
	}
	for _, dir := range dirs {
		p, err := c.open(dir)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", dir, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), budget)
		err = p.mutate(ctx)
		cancel()
		if err := errors.Join(err, p.close()); err != nil {
			return 0, fmt.Errorf("%s: %w", dir, err)
		}
		n := p.count()
		if n.survived > n.known {
			worst = 1
		}
		rows = append(
			rows,
			fmt.Sprintf("| %s | %d | %d | %d | %d | %d |", p.name, len(p.mutants), n.killed, n.survived, n.known,
				n.left),
		)
	}
	fmt.Println(strings.Join(rows, "\n"))
	return worst, nil
}

// readKnown reads the known survivors: lines that begin with "- `package/file.go function: change`".
func readKnown(path string) (map[string]bool, error) {
	known := map[string]bool{}
	if path == "" {
		return known, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		for rest, ok := scanner.Text(), strings.HasPrefix(scanner.Text(), "- `"); ok; {
			var name string
			if _, rest, ok = strings.Cut(rest, "`"); ok {
				name, rest, _ = strings.Cut(rest, "`")
				known[name] = true
			}
		}
	}
	return known, scanner.Err()
}
