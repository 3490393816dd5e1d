package auth

import (
	"fmt"
	"strings"
	"testing"
)

// checkBounds checks that the cache's sums equal those of its entries, and are within bounds.
func checkBounds(t *testing.T, c *tokenCache) {
	t.Helper()
	bytes, counts, shares := 0, map[string]int{}, map[string]int{}
	for input, entry := range c.entries {
		if entry.input != input {
			t.Fatalf("entry %q is stored as %q", entry.input, input)
		}
		bytes += entry.size()
		counts[entry.principal.Subject]++
		shares[entry.principal.Subject] += entry.size()
	}
	if bytes != c.bytes || bytes > cachedBytes || len(c.entries) > cachedTokens || c.recent.Len() != len(c.entries) ||
		len(c.subjects) != len(counts) {
		t.Fatalf("%d entries of %d bytes, counted as %d of %d; %d subjects, counted as %d", len(c.entries), bytes,
			c.recent.Len(), c.bytes, len(counts), len(c.subjects))
	}
	for subject, n := range counts {
		if share := c.subjects[subject]; n != share.recent.Len() || n > maxSubjectTokens ||
			share.bytes != shares[subject] || share.bytes > maxSubjectBytes {
			t.Fatalf("%s: %d entries, counted as %d, of %d bytes", subject, n, share.recent.Len(), share.bytes)
		}
	}
}

func TestTokenCache_SubjectReplacesOnlyItsOwnEntries(t *testing.T) {
	for _, size := range []int{10, 16 << 10} {
		c := newTokenCache()
		add := func(subject string, n int) string {
			text := fmt.Sprintf("%s.%d%s.signature", subject, n, strings.Repeat("x", size))
			c.add(text, verified{principal: &Principal{Subject: subject}})
			return text
		}
		others := []string{add("a", 0), add("b", 0), add("c", 0)}
		var last string
		for n := range 2 * cachedTokens {
			last = add("hostile", n)
		}
		checkBounds(t, c)
		for _, text := range append(others, last) {
			if _, ok := c.get(text); !ok {
				t.Errorf("size %d: %.10s… is not cached", size, text)
			}
		}
	}
}

func TestTokenCache_LeastRecentlyUsedIsReplaced(t *testing.T) {
	c := newTokenCache()
	add := func(subject string) string {
		text := subject + ".claims.signature"
		c.add(text, verified{principal: &Principal{Subject: subject}})
		return text
	}
	used, unused := add("used"), add("unused")
	for n := range cachedTokens - 1 {
		if _, ok := c.get(used); !ok {
			t.Fatal("an entry in use was replaced")
		}
		add(fmt.Sprint(n))
	}
	checkBounds(t, c)
	if _, ok := c.get(unused); ok {
		t.Error("the entry that was used least recently stays")
	}
}

func TestTokenCache_SameInputIsOneEntry(t *testing.T) {
	c := newTokenCache()
	p := &Principal{Subject: "app"}
	c.add("h.c.one", verified{principal: p})
	c.add("h.c.two", verified{principal: p})
	checkBounds(t, c)
	if _, ok := c.get("h.c.one"); ok || len(c.entries) != 1 {
		t.Errorf("%d entries, the former among them: %t", len(c.entries), ok)
	}
	if _, ok := c.get("h.c.two"); !ok {
		t.Error("the newest is not cached")
	}
}

func TestTokenCache_LookupDoesNotAllocate(t *testing.T) {
	c := newTokenCache()
	text := "h.c.signature"
	c.add(text, verified{principal: &Principal{Subject: "app"}})
	if n := testing.AllocsPerRun(100, func() { c.get(text) }); n != 0 {
		t.Errorf("%v objects per lookup", n)
	}
}

// Within a subject's share, the least recently used token is evicted.
func TestTokenCache_SubjectsTokenInUseStays(t *testing.T) {
	c := newTokenCache()
	add := func(n int) string {
		text := fmt.Sprintf("h.%d.signature", n)
		c.add(text, verified{principal: &Principal{Subject: "app"}})
		return text
	}
	used, unused := add(0), add(1)
	for n := range maxSubjectTokens - 1 {
		if _, ok := c.get(used); !ok {
			t.Fatal("a token in use was replaced")
		}
		add(n + 2)
	}
	if _, ok := c.get(unused); ok {
		t.Error("the token that was used least recently stays")
	}
}

// Many subjects with the largest tokens fill the cache's bytes, and never exceed them.
func TestTokenCache_BytesOfAllSubjectsAreBounded(t *testing.T) {
	c := newTokenCache()
	claims := strings.Repeat("x", maxTokenBytes-100) // the cache never copies a part of a token
	for n := range 400 {
		c.add(fmt.Sprintf("%d.%s.signature", n, claims), verified{principal: &Principal{Subject: fmt.Sprint(n % 50)}})
	}
	checkBounds(t, c)
	tokens, bytes := c.size()
	if room := cachedBytes - bytes; tokens >= 400 || room >= 4*maxTokenBytes {
		t.Errorf("%d tokens have %d bytes: %d are not used", tokens, bytes, room)
	}
	if again, _ := c.size(); again != tokens {
		t.Errorf("%d tokens, then %d", tokens, again)
	}
}
