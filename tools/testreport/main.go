// Command testreport prints the output of `go test -json`, which it reads from standard input, as
// `go test` prints it: the lines of packages, and the output of failed tests. It appends the
// slowest packages and tests to a file.
//
// Usage: go test -json ./... | testreport FILE
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
)

// slowest is the number of packages, and of tests, that are listed.
const slowest = 10

// event is an event of test2json (`go doc test2json`).
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64 // in seconds
	Output  string
}

// test identifies a test; name is "" for the package itself.
type test struct{ pkg, name string }

type duration struct {
	of      test
	seconds float64
}

// report collects events.
type report struct {
	pending         map[test][]string // output of tests that have not ended
	packages, tests []duration
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("testreport: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: testreport FILE")
	}
	r := &report{pending: map[test][]string{}}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Print(string(line)) // of the go command itself
			} else {
				r.take(e)
			}
		}
		if err != nil {
			break
		}
	}
	file, err := os.OpenFile(os.Args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = file.WriteString(r.String())
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := file.Close(); err != nil {
		log.Fatal(err)
	}
}

func (r *report) take(e event) {
	of := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if e.Test != "" {
			r.pending[of] = append(r.pending[of], e.Output)
		} else if e.Output != "PASS\n" {
			fmt.Print(e.Output)
		}
	case "pass", "skip", "fail":
		if e.Action == "fail" {
			r.print(of)
		}
		delete(r.pending, of)
		switch {
		case e.Test == "":
			r.packages = append(r.packages, duration{of, e.Elapsed})
		case !strings.Contains(e.Test, "/"): // subtests are part of their test
			r.tests = append(r.tests, duration{of, e.Elapsed})
		}
	}
}

// print prints the output of a test, or of all tests of a package that did not end.
func (r *report) print(of test) {
	for pending, output := range r.pending {
		if pending != of && (of.name != "" || pending.pkg != of.pkg) {
			continue
		}
		for _, line := range output {
			if !strings.HasPrefix(line, "=== ") {
				fmt.Print(line)
			}
		}
		delete(r.pending, pending)
	}
}

// String lists the slowest packages and tests.
func (r *report) String() string {
	var out strings.Builder
	for _, list := range [][]duration{r.packages, r.tests} {
		slices.SortFunc(list, func(a, b duration) int { return cmp.Compare(b.seconds, a.seconds) })
		for _, d := range list[:min(slowest, len(list))] {
			fmt.Fprintf(&out, "%7.1f s  %s %s\n", d.seconds, d.of.pkg, d.of.name)
		}
		out.WriteByte('\n')
	}
	return out.String()
}
