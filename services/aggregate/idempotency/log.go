package idempotency

import (
	"context"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/services/aggregate/tenantcache"
)

const (
	// newestAnswers bounds the answers that are in no block yet.
	newestAnswers = 128
	// Estimates of memory, in bytes.
	answerBytes = 320 // of an answer with its key
	blockBytes  = 64  // of a block without its hashes and answers
)

// Answer identifies the events of a command.
type Answer struct {
	// Fingerprint is a hash of what the command asks for.
	Fingerprint string `json:"fingerprint"`
	// FirstSequence is the sequence of the command's first event, and Events their number.
	FirstSequence uint64 `json:"first_sequence"`
	Events        int    `json:"events"`
}

// Logs creates the logs of a node's aggregates, which share a store and a cache of block indexes.
// Its methods may be called concurrently.
type Logs struct {
	store   Store
	indexes *tenantcache.Cache[indexKey, *blockIndex]
}

// NewLogs returns logs over a store. cacheBytes bounds the memory of cached block indexes.
func NewLogs(store Store, cacheBytes int64) *Logs {
	return &Logs{
		store: store,
		indexes: tenantcache.New[indexKey, *blockIndex](cacheBytes,
			func(k indexKey) contextkit.TenantID { return k.key.Tenant }),
	}
}

// IndexStats returns the state of the cache of block indexes.
func (l *Logs) IndexStats() tenantcache.Stats { return l.indexes.Stats() }

// New returns the empty log of an aggregate.
func (l *Logs) New(key Key) *Log {
	log := &Log{logs: l, key: key}
	log.newest, _ = lru.NewWithEvict(newestAnswers, log.age) // it fails only for a size below 1
	return log
}

// Log is the idempotency log of one aggregate. Its methods must not be called concurrently.
type Log struct {
	logs  *Logs
	key   Key
	epoch int64     // of the journal
	at    time.Time // time of the last recorded event
	// newest has the newest answers. It is only added to and peeked at, so that answers leave it in
	// the journal's order.
	newest   *lru.Cache[string, Answer]
	blocks   []*block // of the answers that left newest, the oldest first; the last may have space
	indexes  []uint64 // first sequences of the indexes of older blocks, the oldest first
	indexing bool     // an index of the oldest blocks is pending
	pending  []*write // full blocks and indexes that are not known to be stored yet
}

// Reset empties the log, and sets the epoch of the journal whose events are recorded next.
func (l *Log) Reset(epoch int64) {
	l.at, l.epoch = time.Time{}, epoch
	l.newest.Purge()
	l.blocks, l.indexes, l.indexing, l.pending = nil, nil, false, nil
}

// Record adds an event to the answer of its command. Events must be recorded in the journal's order.
func (l *Log) Record(event journal.Event) {
	if event.Command.IdempotencyKey == "" {
		return
	}
	l.at = event.Time
	known, ok := l.newest.Peek(event.Command.IdempotencyKey)
	if !ok || known.Fingerprint != event.Command.Fingerprint {
		known = Answer{Fingerprint: event.Command.Fingerprint, FirstSequence: event.Sequence}
	}
	known.Events++
	l.newest.Add(event.Command.IdempotencyKey, known)
}

// age adds an answer that newest evicts to the last block.
func (l *Log) age(key string, known Answer) {
	if time.Since(l.at) > streams.IdempotencyTTL {
		return // the events are old: their records would be retained for another TTL
	}
	if len(l.blocks) == 0 || l.blocks[len(l.blocks)-1].full() {
		l.blocks = append(l.blocks, newBlock(known.FirstSequence))
	}
	last := l.blocks[len(l.blocks)-1]
	if last.add(key, known); last.full() {
		l.pending = append(l.pending, &write{record: last})
	}
}

// Find returns the answer of a key, and false if the log has none. It reads the store only if the
// key's hash is in a stored block. Errors: the store's.
func (l *Log) Find(ctx context.Context, key string) (known Answer, ok bool, err error) {
	if known, ok = l.newest.Peek(key); ok {
		return known, true, nil
	}
	if len(l.blocks) == 0 && len(l.indexes) == 0 {
		return Answer{}, false, nil
	}
	hash := hashOf(key)
	if known, ok, err = l.findInBlocks(ctx, key, hash); ok || err != nil {
		return known, ok, err
	}
	return l.findInIndexes(ctx, key, hash)
}

func (l *Log) findInBlocks(ctx context.Context, key string, hash uint32) (known Answer, ok bool, err error) {
	for _, b := range slices.Backward(l.blocks) {
		if !b.has(hash) {
			continue
		}
		if b.answers != nil {
			known, ok = b.answers[key]
		} else {
			known, ok, err = l.readBlock(ctx, b.first, key)
		}
		if ok || err != nil {
			return known, ok, err
		}
	}
	return Answer{}, false, nil
}

func (l *Log) findInIndexes(ctx context.Context, key string, hash uint32) (Answer, bool, error) {
	for n, first := range slices.Backward(l.indexes) {
		x, err := l.readIndex(ctx, first)
		if err != nil {
			return Answer{}, false, err
		}
		if x == nil {
			l.indexes = slices.Delete(l.indexes, 0, n+1) // older indexes have expired too
			break
		}
		for block := range x.find(hash) {
			if known, ok, err := l.readBlock(ctx, block, key); ok || err != nil {
				return known, ok, err
			}
		}
	}
	return Answer{}, false, nil
}

// Size estimates the bytes of memory of the log.
func (l *Log) Size() int {
	bytes := answerBytes*l.newest.Len() + 8*len(l.indexes)
	for _, b := range l.blocks {
		bytes += blockBytes + 4*len(b.hashes) + answerBytes*len(b.answers)
	}
	return bytes
}
