package journal

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Range is a part of the journal: the messages on a subject with sequences from From to Before.
type Range struct {
	// Subject may have wildcards.
	Subject string
	// From is the first sequence, and Before the first one after the range; 0: the journal's end.
	From, Before uint64
}

// AllEvents is the subject of the events of all tenants.
const AllEvents = "events.>"

// EventsOf returns the subject of a tenant's events, of all aggregates of a type, or of one aggregate: empty names
// stand for all.
func EventsOf(tenant contextkit.TenantID, aggregateType, aggregateID string) string {
	switch {
	case aggregateType == "":
		return streams.TenantEvents(tenant)
	case aggregateID == "":
		return streams.EventSubject(tenant, aggregateType, ">")
	}
	return streams.EventSubject(tenant, aggregateType, aggregateID)
}

// errScanned ends a scan.
var errScanned = errors.New("scanned enough")

// Scan calls each for the messages of a range, whether they are events or not, in order, until it returns false or
// most messages have been read. It returns the sequence at which the next scan continues, 0 when the range has no
// more: that of a message for which each has returned false. What was acknowledged before the call is included.
func (j *Journal) Scan(ctx context.Context, r Range, most int, each func(Message) bool) (next uint64, err error) {
	err = j.While(ctx, func(ctx context.Context) error {
		next, err = j.scan(ctx, r, most, each)
		return err
	})
	return next, err
}

func (j *Journal) scan(ctx context.Context, r Range, most int, each func(Message) bool) (next uint64, err error) {
	next = max(r.From, 1)
	before := r.Before
	if before == 0 {
		before = math.MaxUint64
	}
	left, over := most, false
	take := func(msg *jetstream.RawStreamMsg) error {
		if msg.Sequence >= before {
			over = true
			return errScanned
		}
		if !each(RawMessage(msg)) {
			next = msg.Sequence
			return errScanned
		}
		next = msg.Sequence + 1
		left--
		return nil
	}
	for left > 0 && next < before {
		err := natsclient.ReadPart(ctx, j.js, streams.Events, r.Subject, next, left, take)
		if err == nil && left > 0 { // as far as the replica that has answered knows
			var msg *jetstream.RawStreamMsg
			msg, err = natsclient.AskLeader(ctx, j.js, streams.Events,
				natsclient.Question{From: next, Subject: r.Subject})
			if err == nil && msg == nil {
				return 0, nil
			}
			if err == nil {
				err = take(msg)
			}
		}
		switch {
		case errors.Is(err, errScanned) && over:
			return 0, nil
		case errors.Is(err, errScanned):
			return next, nil
		case err != nil:
			return next, err
		}
	}
	if next >= before {
		return 0, nil
	}
	return next, nil
}

// VersionOf returns the aggregate's version that a message has or claims, 0 if it has none.
func VersionOf(m Message) int64 {
	version, err := strconv.ParseInt(once(m.Header, ceVersion), 10, 64)
	if err != nil || version < 0 {
		return 0
	}
	return version
}

// TypeOf returns the type of event that a message has or claims, "" if it has none.
func TypeOf(m Message) string { return once(m.Header, HeaderType) }

const (
	// firstWindow is the number of sequences that a backward scan reads first, and windowMessages and windowBytes
	// bound the messages that it holds.
	firstWindow, windowMessages, windowBytes = 512, 1024, 8 << 20
)

// ScanBack is [Journal.Scan] from a range's end to its beginning. It returns the sequence before which the next scan
// continues, 0 when the range has no more. It reads in windows of sequences that grow while they contain few of the
// subject's messages. It holds at most 1,024 messages and 8 MiB of them, or a single message.
func (j *Journal) ScanBack(
	ctx context.Context,
	r Range,
	most int,
	each func(Message) bool,
) (next uint64, err error) {
	err = j.While(ctx, func(ctx context.Context) error {
		next, err = j.scanBack(ctx, r, most, each)
		return err
	})
	return next, err
}

func (j *Journal) scanBack(ctx context.Context, r Range, most int, each func(Message) bool) (uint64, error) {
	last, err := natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{Last: r.Subject})
	if last == nil || err != nil {
		return 0, err
	}
	first, end := max(r.From, 1), last.Sequence+1
	if r.Before != 0 {
		end = min(end, r.Before)
	}
	window := uint64(firstWindow)
	for read := 0; end > first; {
		if read >= most {
			return end, nil
		}
		from := end - min(window, end-first)
		found, count, fits, err := j.window(ctx, Range{Subject: r.Subject, From: from, Before: end})
		if err != nil {
			return end, err
		}
		read += count
		if !fits {
			window = max(min(window, end-first)/4, 1)
			continue
		}
		for _, m := range slices.Backward(found) {
			if !each(m) {
				return m.Sequence + 1, nil
			}
		}
		if end = from; len(found) < windowMessages/4 {
			window *= 2 // the subject's messages are few among others'
		}
	}
	return 0, nil
}

// window returns the messages of a range, the number of messages that were read, and whether the range's messages fit
// the bounds.
func (j *Journal) window(ctx context.Context, r Range) (found []Message, read int, fits bool, err error) {
	bytes, fits := 0, true
	_, err = j.scan(ctx, r, int(min(r.Before-r.From, math.MaxInt)), func(m Message) bool {
		read++
		bytes += len(m.Data) + headerBytes
		if fits = len(found) == 0 || len(found) < windowMessages && bytes <= windowBytes; fits {
			found = append(found, m)
		}
		return fits
	})
	return found, read, fits, err
}

// headerBytes estimates the headers of a message.
const headerBytes = 2 << 10

// Seek returns the first sequence of a range from which on after reports true for its messages, by bisection: about as
// many requests as the binary logarithm of the range. after must report false for the messages before. It is the
// range's end, or the journal's, if no message is after. What was acknowledged before the call is included.
func (j *Journal) Seek(ctx context.Context, r Range, after func(Message) bool) (sequence uint64, err error) {
	err = j.While(ctx, func(ctx context.Context) error {
		sequence, err = j.seek(ctx, r, after)
		return err
	})
	return sequence, err
}

func (j *Journal) seek(ctx context.Context, r Range, after func(Message) bool) (uint64, error) {
	low, high := max(r.From, 1), r.Before
	last, err := natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{Last: r.Subject})
	switch {
	case err != nil:
		return 0, err
	case last == nil:
		return low, nil
	case high == 0 || high > last.Sequence+1:
		high = last.Sequence + 1
	}
	for low < high {
		middle := low + (high-low)/2
		msg, err := natsclient.AskLeader(ctx, j.js, streams.Events,
			natsclient.Question{From: middle, Subject: r.Subject})
		if err != nil {
			return 0, err
		}
		switch {
		case msg == nil || msg.Sequence >= high, after(RawMessage(msg)):
			high = middle
		default:
			low = msg.Sequence + 1
		}
	}
	return low, nil
}
