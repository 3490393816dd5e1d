package wordlist

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestDecisions_HaveDateStatusAndSections(t *testing.T) {
	paths, err := filepath.Glob("../../docs/decisions/0*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d decisions: %v", len(paths), err)
	}
	index, err := os.ReadFile("../../docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]*regexp.Regexp{
		"a title with its number": regexp.MustCompile(`^# \d{4}: .+\n\n`),
		"a date and a status": regexp.MustCompile(
			`(?m)^Date: \d{4}-\d{2}-\d{2}\b.*\. Status: (?:accepted|superseded)`,
		),
		"a context":    regexp.MustCompile(`(?m)^## Context$`),
		"a decision":   regexp.MustCompile(`(?m)^## Decision$`),
		"consequences": regexp.MustCompile(`(?m)^## Consequences$`),
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, pattern := range parts {
			if !pattern.Match(text) {
				t.Errorf("%s lacks %s", path, name)
			}
		}
		if !strings.Contains(string(index), "("+filepath.Base(path)+")") {
			t.Errorf("docs/decisions/README.md does not list %s", path)
		}
	}
}
