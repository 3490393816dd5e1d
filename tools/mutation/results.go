package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// outcome is how the tests end over a mutant.
type outcome string

const (
	killed   outcome = "killed"
	survived outcome = "survived"
	invalid  outcome = "invalid" // it does not compile
)

// results are the outcomes of earlier runs over a package, so that a run resumes: a mutant that was killed is not tried
// again until its file changes.
type results struct {
	file     *os.File
	outcomes map[string]outcome
}

// entry is a line of the file of results.
type entry struct {
	Key     string  `json:"key"`
	Outcome outcome `json:"outcome"`
}

// openResults reads the results of a package's earlier runs.
func openResults(dir, of string) (*results, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, strings.ReplaceAll(strings.Trim(of, "/"), "/", "_")+".jsonl")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r := &results{file: file, outcomes: map[string]outcome{}}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		var e entry
		if json.Unmarshal(scanner.Bytes(), &e) == nil { // a run that is killed may leave half a line
			r.outcomes[e.Key] = e.Outcome
		}
	}
	return r, nil
}

func (r *results) store(m *mutant, o outcome) error {
	r.outcomes[m.key()] = o
	line, err := json.Marshal(entry{m.key(), o})
	if err != nil {
		return err
	}
	_, err = r.file.Write(append(line, '\n'))
	return err
}

// key is the mutant's name in results: it changes with the mutant's line, not with the rest of the file.
func (m *mutant) key() string { return fmt.Sprintf("%s #%d", m, m.occurrence) }

// baseline is what the tests of an unchanged package cover and how long they take.
type baseline struct {
	Took    time.Duration
	Profile string
}

// readBaseline reads the baseline of a package whose files are unchanged since.
func readBaseline(dir, digest string) (baseline, bool) {
	var b baseline
	text, err := os.ReadFile(filepath.Join(dir, digest+".json"))
	return b, err == nil && json.Unmarshal(text, &b) == nil
}

func (b baseline) store(dir, digest string) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, digest+".json"), text, 0o600)
}

// digest identifies the files of a package and the tests that are run.
func digest(dir string, flags ...string) (string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, dir, flags)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, path, len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}
