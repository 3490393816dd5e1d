// Command testreport runs `go test` and prints what it prints: the lines of packages, and the output of failed tests.
// It appends the slowest packages and tests to a file.
//
// Most tests run real servers, and some fail on a machine that is busy with other things. If at most five tests fail,
// each is run again by itself. If it passes then, it is listed in the file as unstable, with the output of its
// failure, and the run passes. A data race, a panic, a time-out and a package that does not build fail the run.
//
// Usage: testreport [-for DURATION] FILE ARGUMENT...
//
// The arguments are those of `go test`, with the packages at the end. With -for, the run ends after a duration. It then
// passes if nothing has failed, and reports how many packages have passed.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// slowest is the number of packages, and of tests, that are listed.
	slowest = 10
	// maxAgain is the number of failed tests that are run again. If more fail, the tree is at fault.
	maxAgain = 5
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("testreport: ")
	limit := flag.Duration("for", 0, "end the run after this duration")
	flag.Parse()
	if flag.NArg() < 2 {
		log.Fatal("usage: testreport [-for DURATION] FILE ARGUMENT...")
	}
	arguments := flag.Args()[1:]
	all := newReport()
	passed := all.run(arguments, *limit) == nil || all.onlyCut()
	summary := all.String()
	if all.cut.Load() {
		summary += fmt.Sprintf("LEFT OUT: %d packages have passed within %v; the others had no time\n",
			len(all.packages)-len(all.failed), *limit)
	}
	if again, ok := all.mayRunAgain(); !passed && ok {
		passed = true
		for _, of := range again {
			fmt.Printf("── %s %s failed and is run again\n", of.pkg, of.name)
			if newReport().run(argumentsFor(arguments, of), 0) != nil {
				passed = false
				continue
			}
			summary += fmt.Sprintf("UNSTABLE: %s %s failed, and passed when it was run again:\n%s\n",
				of.pkg, of.name, all.failures[of])
		}
	}
	if err := appendTo(flag.Arg(0), summary); err != nil {
		log.Fatal(err)
	}
	if !passed {
		os.Exit(1)
	}
}

// argumentsFor returns the arguments that run one test, given the arguments that run all of them.
func argumentsFor(arguments []string, of test) []string {
	packages := func(argument string) bool { return strings.HasPrefix(argument, "./") }
	kept := slices.DeleteFunc(slices.Clone(arguments), packages)
	return append(kept, "-count=1", "-run", "^"+regexp.QuoteMeta(of.name)+"$", of.pkg)
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.WriteString(text); err != nil {
		_ = file.Close() // the first error is returned
		return err
	}
	return file.Close()
}

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

// top returns the test that of is a part of.
func (of test) top() test {
	name, _, _ := strings.Cut(of.name, "/")
	return test{of.pkg, name}
}

type duration struct {
	of      test
	seconds float64
}

// report collects the events of one `go test`.
type report struct {
	pending         map[test][]string // output of tests that have not ended
	packages, tests []duration
	failed          map[string]bool // packages
	failures        map[test]string // output of failed tests, by the test that they are a part of
	fatal           bool            // not only tests have failed
	cut             atomic.Bool     // the run had no more time
}

func newReport() *report {
	return &report{pending: map[test][]string{}, failed: map[string]bool{}, failures: map[test]string{}}
}

// run runs `go test`, for at most a duration unless that is 0, and returns how it ends.
func (r *report) run(arguments []string, limit time.Duration) error {
	command := exec.Command("go", append([]string{"test", "-json"}, arguments...)...)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	if limit > 0 {
		timer := time.AfterFunc(limit, func() {
			r.cut.Store(true)
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // it may have ended
			_ = out.Close()                                         // processes of tests may keep it open
		})
		defer timer.Stop()
	}
	lines := bufio.NewReader(out)
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
	return command.Wait()
}

func (r *report) take(e event) {
	of := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "build-fail":
		r.fatal = true
	case "output":
		if isFatal(e.Output) {
			r.fatal = true
		}
		if e.Test != "" {
			r.pending[of] = append(r.pending[of], e.Output)
		} else if e.Output != "PASS\n" {
			fmt.Print(e.Output)
		}
	case "pass", "skip", "fail":
		if e.Action == "fail" {
			r.fail(of)
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

// isFatal reports whether a line of output is of a failure that no second run excuses.
func isFatal(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") ||
		strings.HasPrefix(line, "WARNING: DATA RACE")
}

// fail prints the output of a test, or of all tests of a package that did not end, and keeps that of tests.
func (r *report) fail(of test) {
	if of.name == "" {
		r.failed[of.pkg] = true
	} else if _, kept := r.failures[of.top()]; !kept {
		r.failures[of.top()] = ""
	}
	for pending, output := range r.pending {
		if pending != of && (of.name != "" || pending.pkg != of.pkg) {
			continue
		}
		for _, line := range output {
			if strings.HasPrefix(line, "=== ") {
				continue
			}
			fmt.Print(line)
			if of.name != "" {
				r.failures[of.top()] += line
			}
		}
		delete(r.pending, pending)
	}
}

// onlyCut reports whether the run had no more time, and nothing has failed until then.
func (r *report) onlyCut() bool {
	return r.cut.Load() && !r.fatal && len(r.failed) == 0 && len(r.failures) == 0
}

// mayRunAgain returns the failed tests, and whether nothing else failed and they are few enough to run again.
func (r *report) mayRunAgain() ([]test, bool) {
	explained := map[string]bool{}
	var again []test
	for of := range r.failures {
		explained[of.pkg] = true
		again = append(again, of)
	}
	for pkg := range r.failed {
		if !explained[pkg] { // such as goroutines that remain after the tests
			return nil, false
		}
	}
	slices.SortFunc(again, func(a, b test) int {
		return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.name, b.name))
	})
	return again, !r.fatal && len(again) > 0 && len(again) <= maxAgain
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
