package auth

import (
	"container/list"
	"strings"
	"sync"
	"time"
)

// Bounds of the cache of verified tokens. A verification costs more than the rest of the pipeline.
// Each subject has at most a share of the entries and of the bytes, so a subject with many tokens
// evicts only its own.
const (
	cachedTokens      = 4096
	cachedBytes       = 16 << 20
	subjectShare      = 32
	maxSubjectTokens  = cachedTokens / subjectShare
	maxSubjectBytes   = cachedBytes / subjectShare
	cachedEntryBytes  = 512 // of an entry, in addition to its texts
	cachedBytesFactor = 3   // of a token's text, for the values parsed from it
)

// verified is a token whose signature and claims have been verified.
type verified struct {
	principal *Principal
	notBefore time.Time
	keys      *keys // the keys in use when it was verified
	mapped    int   // the bytes of what its claims are mapped to
	refused   error // why its claims are mapped to no principal; nil: they are
}

// holds reports whether the key that signed the token is still in use.
func (t verified) holds() bool {
	ring := t.principal.issuer.Keys
	return t.keys == ring.current.Load() || ring.holds(t.principal.signer)
}

// tokenCache is an LRU cache of verified tokens. Its key is the signing input without the
// signature: each ECDSA signature (r, s) has a second valid form (r, n-s), which replaces an entry
// rather than adding one. It is safe for concurrent use.
type tokenCache struct {
	mu       sync.Mutex
	entries  map[string]*cachedToken // by signing input
	recent   list.List               // of *cachedToken, the most recently used first
	subjects map[string]*tokenShare
	bytes    int
}

// tokenShare holds the tokens of one subject.
type tokenShare struct {
	recent list.List // of *cachedToken, the most recently used first
	bytes  int
}

type cachedToken struct {
	verified

	input, signature string
	share            *tokenShare
	all, own         *list.Element // in the cache's list and in the share's
}

func newTokenCache() *tokenCache {
	return &tokenCache{entries: map[string]*cachedToken{}, subjects: map[string]*tokenShare{}}
}

// get returns the verified token of the text.
func (c *tokenCache) get(text string) (verified, bool) {
	input, signature := cutSignature(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.entries[input]
	if !ok || entry.signature != signature {
		return verified{}, false
	}
	c.recent.MoveToFront(entry.all)
	entry.share.recent.MoveToFront(entry.own)
	return entry.verified, true
}

// cutSignature returns a token's signing input and its signature, the text before and after
// the second dot. Two searches forward are faster than one backward.
func cutSignature(text string) (input, signature string) {
	first := strings.IndexByte(text, '.') + 1
	second := strings.IndexByte(text[first:], '.')
	if second < 0 {
		return text, ""
	}
	return text[:first+second], text[first+second+1:]
}

// add stores a verified token, and evicts others to make room for it.
func (c *tokenCache) add(text string, token verified) {
	input, signature := cutSignature(strings.Clone(text)) // a header may be part of a larger string
	entry := &cachedToken{verified: token, input: input, signature: signature}
	c.mu.Lock()
	defer c.mu.Unlock()
	if former, ok := c.entries[entry.input]; ok {
		c.remove(former)
	}
	share := c.subjects[token.principal.Subject]
	for share != nil && (share.recent.Len() >= maxSubjectTokens || share.bytes+entry.size() > maxSubjectBytes) {
		c.remove(oldest(&share.recent))
		share = c.subjects[token.principal.Subject]
	}
	for len(c.entries) >= cachedTokens || c.bytes+entry.size() > cachedBytes {
		c.remove(oldest(&c.recent))
	}
	if share = c.subjects[token.principal.Subject]; share == nil {
		share = &tokenShare{}
		c.subjects[token.principal.Subject] = share
	}
	entry.share = share
	entry.all, entry.own = c.recent.PushFront(entry), share.recent.PushFront(entry)
	c.entries[entry.input] = entry
	c.bytes += entry.size()
	share.bytes += entry.size()
}

// size returns the number of tokens and the bytes that they take.
func (c *tokenCache) size() (tokens, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries), c.bytes
}

func (c *tokenCache) remove(entry *cachedToken) {
	delete(c.entries, entry.input)
	c.recent.Remove(entry.all)
	entry.share.recent.Remove(entry.own)
	c.bytes -= entry.size()
	entry.share.bytes -= entry.size()
	if entry.share.recent.Len() == 0 {
		delete(c.subjects, entry.principal.Subject)
	}
}

func oldest(tokens *list.List) *cachedToken {
	entry, _ := tokens.Back().Value.(*cachedToken)
	return entry
}

// size estimates the bytes that the entry takes.
func (t *cachedToken) size() int {
	return cachedEntryBytes + cachedBytesFactor*(len(t.input)+len(t.signature)) + t.mapped
}
