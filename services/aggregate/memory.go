package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/nats-io/nats.go/jetstream"
)

// maxUnkept bounds an aggregate's records on their way into the bucket: beyond it its
// commands wait for them.
const maxUnkept = 4

// errUnkept says that commands outnumber what is remembered of them.
var errUnkept = errors.New("what commands the aggregate has had cannot be kept")

// unkept is a page or a chapter that is not known to be in the bucket yet.
type unkept struct {
	keepable
	ack jetstream.PubAckFuture // nil: it has to be sent
}

// keepable is a part of an aggregate's memory of its commands that goes into the bucket.
type keepable interface {
	// record is what goes there, and under what name. Whichever node makes the record of
	// a name makes the same: answers fall in the journal's order.
	record(key aggregateKey) (name string, content any)
	// kept is told once it is there.
	kept(i *instance)
}

// recordName tells a record from the aggregate's others: by the first event that it
// knows of, and how many answers.
func recordName(key aggregateKey, first uint64, answers int) string {
	return fmt.Sprintf("%s.%s.%s.%d-%d", key.tenant, key.aggregateType, key.id, first, answers)
}

// fall puts an answer that recent has no more room for into the last page.
func (i *instance) fall(key string, known answer) {
	if time.Since(i.newest) > backbone.IdempotencyTTL {
		return // an old journal is folded; its records would be kept for as long again
	}
	if len(i.pages) == 0 || i.pages[len(i.pages)-1].full() {
		i.pages = append(i.pages, &page{first: known.FirstSequence, hashes: make([]uint32, 0, pageAnswers), answers: map[string]answer{}})
	}
	last := i.pages[len(i.pages)-1]
	if last.add(key, known); last.full() {
		i.unkept = append(i.unkept, &unkept{keepable: last})
	}
}

// bind makes a chapter of the oldest pages once there are twice as many as it takes, so
// that the keys of a command that is sent again are at hand for a while.
func (s *Service) bind(key aggregateKey, i *instance) {
	if i.binding || len(i.pages) < 2*chapterPages {
		return
	}
	oldest := i.pages[:chapterPages]
	if slices.ContainsFunc(oldest, func(p *page) bool { return p.answers != nil }) {
		return
	}
	c := bind(oldest)
	i.binding = true
	i.unkept = append(i.unkept, &unkept{keepable: c})
	s.chapters.getOrAdd(chapterRef{i.epoch, key, c.firsts[0]}, c, c.resident())
}

// settle sees to it that full pages and chapters are kept: it sends them, again if that
// failed, and lets go of what is in the bucket. It waits while too much is on its way.
// Errors: [errUnkept], and the context's.
func (s *Service) settle(ctx context.Context, key aggregateKey, i *instance) error {
	s.bind(key, i)
	left := len(i.unkept)
	i.unkept = slices.DeleteFunc(i.unkept, func(u *unkept) bool {
		if u.ack == nil {
			name, content := u.record(key)
			u.ack, _ = s.answers.record(ctx, name, content) // else the next time
		}
		if u.ack == nil {
			return false
		}
		var wait <-chan struct{} = closed
		if left > maxUnkept {
			wait = ctx.Done()
		}
		kept, lost := outcome(u.ack, wait)
		switch {
		case lost != nil:
			u.ack = nil
		case kept:
			u.kept(i)
			left--
		}
		return kept
	})
	if len(i.unkept) <= maxUnkept {
		return nil
	}
	return errors.Join(errUnkept, ctx.Err())
}

// outcome says whether a record is in the bucket, or why it is not, as far as that is
// known by the time that wait ends.
func outcome(ack jetstream.PubAckFuture, wait <-chan struct{}) (kept bool, lost error) {
	select { // what is known already comes before the end of a wait that has ended
	case <-ack.Ok():
		return true, nil
	case err := <-ack.Err():
		return false, err
	default:
	}
	select {
	case <-ack.Ok():
		return true, nil
	case err := <-ack.Err():
		return false, err
	case <-wait:
		return false, nil
	}
}

// closed is a channel that nobody waits for.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// older returns the answer that a key was given before those of recent.
func (s *Service) older(ctx context.Context, key aggregateKey, i *instance, name string) (known answer, ok bool, err error) {
	hash := hashOf(name)
	for _, p := range slices.Backward(i.pages) {
		if !p.has(hash) {
			continue
		}
		if p.answers != nil {
			known, ok = p.answers[name]
		} else {
			known, ok, err = s.kept(ctx, key, p.first, name)
		}
		if ok || err != nil {
			return known, ok, err
		}
	}
	for n, first := range slices.Backward(i.chapters) {
		c, err := s.chapter(ctx, key, first)
		if err != nil {
			return answer{}, false, err
		}
		if c == nil {
			i.chapters = slices.Delete(i.chapters, 0, n+1) // the time of older ones is over too
			break
		}
		for page := range c.find(hash) {
			if known, ok, err := s.kept(ctx, key, page, name); ok || err != nil {
				return known, ok, err
			}
		}
	}
	return answer{}, false, nil
}

// kept returns a key's answer in the bucket's page that begins at first.
func (s *Service) kept(ctx context.Context, key aggregateKey, first uint64, name string) (known answer, ok bool, err error) {
	record := recordName(key, first, pageAnswers)
	text, err := s.read(ctx, record)
	if text == nil || err != nil {
		return answer{}, false, err
	}
	var answers map[string]answer
	if err := json.Unmarshal(text, &answers); err != nil {
		return answer{}, false, fmt.Errorf("read the idempotency record %s: %w", record, err)
	}
	known, ok = answers[name]
	return known, ok, nil
}

// read returns a record of the bucket, nil when its time is over.
func (s *Service) read(ctx context.Context, name string) (text []byte, err error) {
	err = s.journal.While(ctx, func(ctx context.Context) (err error) {
		text, err = s.answers.read(ctx, name)
		return err
	})
	return text, err
}
