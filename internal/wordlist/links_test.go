package wordlist

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchorID = regexp.MustCompile(`<a id="([^"]+)"`)
	noAnchor = regexp.MustCompile(`[^\pL\pN_ -]`) // what GitHub leaves out of a heading's anchor
)

// anchors returns the anchors of a page: of its headings, and explicit ones.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, found := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		title := noAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(found[1])), "")
		all[strings.ReplaceAll(title, " ", "-")] = true
	}
	for _, found := range anchorID.FindAllStringSubmatch(text, -1) {
		all[found[1]] = true
	}
	return all
}

func TestDocs_LinksResolve(t *testing.T) {
	links := 0
	for _, path := range sources(t) {
		if filepath.Ext(path) != ".md" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(found[1], "://") || strings.HasPrefix(found[1], "mailto:") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(found[1], "#")
			target := filepath.Join("../..", path)
			if file != "" {
				target = filepath.Join("../..", filepath.Dir(path), file)
			}
			page, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				err = nil
			}
			if err != nil {
				t.Errorf("%s: %s: %v", path, found[1], err)
			} else if anchor != "" && filepath.Ext(target) == ".md" && !anchors(string(page))[anchor] {
				t.Errorf("%s: %s: the page has no such heading", path, found[1])
			}
		}
	}
	if links < 100 && *only == "" {
		t.Errorf("%d links were checked", links)
	}
}
