package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// verify compares each restored stream with its file, message by message, and looks for gaps in
// the versions of each aggregate's events.
func (r *restoring) verify(ctx context.Context, streamList []Stream) error {
	for _, stream := range streamList {
		if err := r.same(ctx, stream); err != nil {
			return err
		}
		r.report.Streams++
	}
	if events, there := r.manifest.stream(streams.Events); there {
		if err := r.chains(ctx, events); err != nil {
			return err
		}
	}
	return r.samePositions(ctx)
}

// same compares a restored stream with its file. Messages may be missing that have come due,
// expired, or have a later one on their subject where the stream stores only a few of each;
// messages may follow that are due since.
func (r *restoring) same(ctx context.Context, stream Stream) error {
	differs := func(format string, args ...any) error {
		return fmt.Errorf("backup: %w: stream %s: %s", ErrDiffers, stream.Stream, fmt.Sprintf(format, args...))
	}
	restored, err := r.js.Stream(ctx, stream.Stream)
	if err != nil {
		return fmt.Errorf("backup: stream %s: %w", stream.Stream, err)
	}
	if last := restored.CachedInfo().State.LastSeq; last < stream.Next-1 {
		return differs("its last sequence is %d and not %d", last, stream.Next-1)
	}
	in, err := open(r.dir, stream.Name)
	if err != nil {
		return err
	}
	defer in.close()
	var count uint64
	// missing reads the file up to a sequence and returns the message there, nil if it has none.
	var ahead *message
	missing := func(until uint64) (*message, error) {
		for {
			m := ahead
			ahead = nil
			if m == nil {
				if m, err = in.next(); errors.Is(err, io.EOF) {
					return nil, nil
				} else if err != nil {
					return nil, err
				}
			}
			if m.sequence > until {
				ahead = m
				return nil, nil
			}
			if m.sequence == until {
				return m, nil
			}
			gone, err := r.mayBeGone(ctx, restored, stream, m)
			if err != nil {
				return nil, err
			}
			if !gone {
				return nil, differs("the message at sequence %d is missing", m.sequence)
			}
			r.report.Ended++
		}
	}
	_, err = natsclient.ReadAll(ctx, r.js, stream.Stream, 1, stream.Next-1, func(raw *jetstream.RawStreamMsg) error {
		m := newMessage(raw)
		wanted, err := missing(m.sequence)
		switch {
		case err != nil:
			return err
		case wanted == nil:
			return differs("there is a message at sequence %d that the backup does not have", m.sequence)
		case !wanted.equal(&m):
			return differs("the message at sequence %d is another", m.sequence)
		}
		if count++; count%every == 0 {
			r.options.progress(Progress{
				Step:   "verify",
				Stream: stream.Stream,
				Done:   count,
				Total:  stream.Messages,
			})
		}
		return nil
	})
	if err == nil {
		_, err = missing(stream.Next) // the rest of the file
	}
	r.report.Messages += count
	r.options.progress(Progress{
		Step:   "verify",
		Stream: stream.Stream,
		Done:   count,
		Total:  stream.Messages,
	})
	return err
}

// mayBeGone reports whether a message of the backup may be missing in the restored stream.
func (r *restoring) mayBeGone(ctx context.Context, restored jetstream.Stream, stream Stream, m *message) (bool, error) {
	now := time.Now()
	if age := stream.Config.MaxAge; age > 0 && now.Sub(m.time) >= age {
		return true, nil
	}
	if len(m.header) > 0 && (stream.Config.AllowMsgTTL || stream.Config.AllowMsgSchedules) {
		header, err := nats.DecodeHeadersMsg(m.header)
		if err != nil {
			return false, fmt.Errorf("%w: %s: sequence %d: %w", ErrDamaged, stream.Name, m.sequence, err)
		}
		if header.Get("Nats-TTL") != "" || header.Get("Nats-Schedule") != "" {
			return true, nil // it has come due or expired
		}
	}
	if stream.Config.MaxMsgsPerSubject <= 0 {
		return false, nil
	}
	last, err := restored.GetLastMsgForSubject(ctx, m.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("backup: stream %s: %w", stream.Stream, err)
	}
	return last.Sequence > m.sequence, nil
}

// chainsAtOnce bounds the aggregates whose versions are in memory together: with more, the
// journal's file is read several times.
const chainsAtOnce = 2 << 20

// chains reports where the events of an aggregate do not have the versions 1, 2, 3 and so on.
func (r *restoring) chains(ctx context.Context, events Stream) error {
	seed := maphash.MakeSeed()
	parts := uint64(1)
	for part := uint64(0); part < parts; part++ {
		versions := map[uint64]int64{}
		in, err := open(r.dir, events.Name)
		if err != nil {
			return err
		}
		err = func() error {
			defer in.close()
			for ctx.Err() == nil {
				m, err := in.next()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				subject := maphash.String(seed, m.subject)
				if subject%parts != part {
					continue
				}
				header, err := nats.DecodeHeadersMsg(m.header)
				if err != nil {
					continue // it is no event, which readers report
				}
				event, err := journal.ReadEvent(journal.Message{
					Subject:  m.subject,
					Header:   header,
					Data:     m.data,
					Sequence: m.sequence,
					Time:     m.time,
				})
				if err != nil {
					continue
				}
				if event.Version != versions[subject]+1 {
					r.report.Gaps++
					if r.report.FirstGap == "" {
						r.report.FirstGap = fmt.Sprintf("the event at sequence %d (%s) has version %d after %d",
							m.sequence, m.subject, event.Version, versions[subject])
					}
				}
				versions[subject] = event.Version
				if len(versions) > chainsAtOnce {
					return errTooMany
				}
				r.report.Events++
			}
			return ctx.Err()
		}()
		if errors.Is(err, errTooMany) {
			part, parts, r.report.Events, r.report.Aggregates, r.report.Gaps, r.report.FirstGap = ^uint64(
				0,
			), 2*parts, 0, 0, 0, ""
			continue // from the first part on
		}
		if err != nil {
			return err
		}
		r.report.Aggregates += uint64(len(versions))
	}
	return nil
}

// errTooMany reports that there are too many aggregates for one part.
var errTooMany = errors.New("too many aggregates")

// samePositions compares the restored consumers with the positions of the backup.
func (r *restoring) samePositions(ctx context.Context) error {
	for _, p := range r.positions {
		consumer, err := r.js.Consumer(ctx, streams.Events, p.Config.Durable)
		if err != nil {
			return fmt.Errorf("backup: consumer %s: %w", p.Config.Durable, err)
		}
		if floor := consumer.CachedInfo().AckFloor.Stream; floor != p.Stream {
			return fmt.Errorf("backup: %w: consumer %s is at sequence %d and not %d", ErrDiffers, p.Config.Durable,
				floor, p.Stream)
		}
	}
	return nil
}
