package wordlist

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// folder is a path of the repository in backquotes.
var folder = regexp.MustCompile(
	"`((?:api|cmd|contextkit|control|gateway|internal|model|services)(?:/[a-zA-Z0-9_./]+)?)`",
)

func TestGlossary_NamesFoldersThatExist(t *testing.T) {
	for _, page := range []string{"glossary.md", "extend.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		found := folder.FindAllStringSubmatch(string(text), -1)
		if len(found) < 5 {
			t.Errorf("%s names %d folders", page, len(found))
		}
		for _, path := range found {
			if _, err := os.Stat(filepath.Join("../..", path[1])); err != nil {
				t.Errorf("docs/%s: %v", page, err)
			}
		}
	}
}

// The terms that a reader would search for lead to code, not only to tests.
func TestGlossary_SearchTermsLeadToCode(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads every source, and nothing in it is concurrent")
	}
	left := map[string]bool{}
	for _, term := range []string{
		"backpressure", "rate limit", "circuit breaker", "load shedding", "retry budget", "dedupe",
		"idempotency key", "group commit", "lease", "leader", "fencing token", "consistency token", "checkpoint",
		"dead letter",
	} {
		left[term] = true
	}
	for _, path := range sources(t) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			strings.HasPrefix(path, "internal/wordlist/") {
			continue
		}
		text := strings.ToLower(strings.Join(strings.Fields(string(read(t, path).text)), " "))
		for term := range left {
			if strings.Contains(text, term) {
				delete(left, term)
			}
		}
	}
	for term := range left {
		if *only == "" {
			t.Errorf("no code contains %q", term)
		}
	}
}
