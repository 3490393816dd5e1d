package aggregate

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pageAnswers is how many answers are kept together. A record for each would be a
	// second synced write for each command.
	pageAnswers = 64
	// maxPages bounds the pages that an aggregate knows, 4 bytes a command; the keys
	// of older ones are forgotten.
	maxPages = 1024
	// maxUnkept bounds an aggregate's pages on their way into the bucket: beyond it
	// its commands wait for them.
	maxUnkept = 4
)

// page is answers that fell out of an aggregate's recent ones, one after the other. It
// has them until they are known to be in the bucket; then it knows their keys' hashes
// alone, by which a key is known to be new without a read.
type page struct {
	first   uint64            // sequence of the first answer's first event
	hashes  []uint32          // of the keys, sorted
	answers map[string]answer // by key; nil once they are in the bucket
	kept    jetstream.PubAckFuture
}

func hashOf(key string) uint32 { return uint32(xxhash.Sum64String(key)) }

func (p *page) full() bool { return len(p.hashes) >= pageAnswers }

// name tells the page from the aggregate's others, whichever node makes it and of
// however many answers its pages are: they fall in the journal's order.
func (p *page) name(key aggregateKey) string {
	return fmt.Sprintf("%s.%s.%s.%d-%d", key.tenant, key.aggregateType, key.id, p.first, len(p.hashes))
}

func (p *page) add(key string, known answer) {
	h := hashOf(key)
	at, _ := slices.BinarySearch(p.hashes, h)
	p.hashes = slices.Insert(p.hashes, at, h)
	p.answers[key] = known
}

// has says whether the key may be the page's; if not, it is not.
func (p *page) has(hash uint32) bool {
	_, found := slices.BinarySearch(p.hashes, hash)
	return found
}

// fall puts an answer that recent has no more room for into the last page.
func (i *instance) fall(key string, known answer) {
	if len(i.pages) == 0 || i.pages[len(i.pages)-1].full() {
		i.pages = append(i.pages, &page{first: known.FirstSequence, hashes: make([]uint32, 0, pageAnswers), answers: map[string]answer{}})
	}
	last := i.pages[len(i.pages)-1]
	if last.add(key, known); last.full() {
		i.unkept = append(i.unkept, last)
	}
	if excess := len(i.pages) - maxPages; excess > 0 {
		i.pages = slices.Delete(i.pages, 0, excess)
		i.unkept = slices.DeleteFunc(i.unkept, func(p *page) bool { return p.first < i.pages[0].first })
	}
}

// older returns the answer that a key was given before those of recent.
func (s *Service) older(ctx context.Context, key aggregateKey, i *instance, name string) (known answer, ok bool, err error) {
	hash := hashOf(name)
	for _, p := range slices.Backward(i.pages) {
		if !p.has(hash) {
			continue
		}
		answers := p.answers
		if answers == nil {
			err = s.journal.While(ctx, func(ctx context.Context) (err error) {
				answers, err = s.answers.read(ctx, p.name(key))
				return err
			})
			if err != nil {
				return answer{}, false, err
			}
		}
		if known, ok = answers[name]; ok {
			return known, true, nil
		}
	}
	return answer{}, false, nil
}

// settle sees to it that full pages are kept: it sends them, again if that failed, and
// lets go of the answers that are in the bucket.
func (s *Service) settle(ctx context.Context, key aggregateKey, i *instance) {
	i.unkept = slices.DeleteFunc(i.unkept, func(p *page) bool {
		if p.kept == nil {
			p.kept, _ = s.answers.record(ctx, p.name(key), p.answers) // else the next time
			return false
		}
		wait := ctx.Done()
		if len(i.unkept) <= maxUnkept {
			wait = closed
		}
		switch outcome(p.kept, wait) {
		case recordKept:
			p.answers, p.kept = nil, nil
			return true
		case recordLost:
			p.kept = nil
		}
		return false
	})
}

// What has become of a record.
const (
	recordPending = iota
	recordKept
	recordLost
)

// outcome returns what has become of a record by the time that wait ends.
func outcome(kept jetstream.PubAckFuture, wait <-chan struct{}) int {
	// What is known already comes before the end of a wait that has ended.
	for _, until := range []<-chan struct{}{nil, wait} {
		if until == nil && len(kept.Ok()) == 0 && len(kept.Err()) == 0 {
			continue
		}
		select {
		case <-kept.Ok():
			return recordKept
		case err := <-kept.Err():
			return lost(err)
		case <-until:
		}
	}
	return recordPending
}

func lost(err error) int {
	if err != nil {
		return recordLost
	}
	return recordPending
}

// closed is a channel that nobody waits for.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// keptPage is a page in a snapshot.
type keptPage struct {
	First  uint64 `json:"first"`
	Hashes []byte `json:"hashes"` // four bytes each, little-endian
	// Answers are those of a page that was not known to be in the bucket yet.
	Answers map[string]answer `json:"answers,omitempty"`
}

func (p *page) keep() keptPage {
	kept := keptPage{First: p.first, Hashes: make([]byte, 0, 4*len(p.hashes)), Answers: p.answers}
	for _, h := range p.hashes {
		kept.Hashes = binary.LittleEndian.AppendUint32(kept.Hashes, h)
	}
	return kept
}

// page returns the page, false if it cannot have been one.
func (k keptPage) page() (*page, bool) {
	p := &page{first: k.First, hashes: make([]uint32, 0, max(len(k.Hashes)/4, pageAnswers)), answers: k.Answers}
	if len(k.Hashes)%4 != 0 {
		return nil, false
	}
	for four := range slices.Chunk(k.Hashes, 4) {
		p.hashes = append(p.hashes, binary.LittleEndian.Uint32(four))
	}
	// What has room is not in the bucket.
	return p, slices.IsSorted(p.hashes) && (p.full() || p.answers != nil)
}
