package idempotency

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// maxPending bounds the records of a log that are not known to be stored. Beyond it, Flush waits.
const maxPending = 4

// ErrBacklog is returned while the store does not acknowledge the log's records, and holding more of them in memory
// would exceed the log's bound.
var ErrBacklog = errors.New("the answers of the aggregate's commands cannot be stored")

// write is a full block or an index that is not known to be stored yet.
type write struct {
	record record
	ack    jetstream.PubAckFuture // nil: it has to be sent
}

// record is a part of a log that is stored.
type record interface {
	// encode returns the record's name and its content. Every node that creates the record of a
	// name creates the same content: answers leave the newest in the journal's order.
	encode(key Key) (name string, content any)
	// stored is called once the record is stored.
	stored(l *Log)
}

// Pending returns the number of records that are not known to be stored.
func (l *Log) Pending() int { return len(l.pending) }

// Flush sends full blocks and indexes to the store, again if that failed, and releases the content of stored ones. It
// waits, until ctx ends, while more than 4 are not stored. Errors: [ErrBacklog], joined with the context's.
func (l *Log) Flush(ctx context.Context) error {
	l.index()
	if len(l.pending) == 0 {
		return nil
	}
	left := len(l.pending)
	l.pending = slices.DeleteFunc(l.pending, func(w *write) bool {
		if w.ack == nil {
			w.ack = l.send(ctx, w.record)
		}
		if w.ack == nil {
			return false // the next Flush sends it again
		}
		var wait <-chan struct{} = closed
		if left > maxPending {
			wait = ctx.Done()
		}
		stored, lost := outcome(w.ack, wait)
		switch {
		case lost != nil:
			w.ack = nil
		case stored:
			w.record.stored(l)
			left--
		}
		return stored
	})
	if len(l.pending) <= maxPending {
		return nil
	}
	return errors.Join(ErrBacklog, ctx.Err())
}

// send starts to store a record, and returns nil if that fails.
func (l *Log) send(ctx context.Context, r record) jetstream.PubAckFuture {
	name, content := r.encode(l.key)
	data, err := json.Marshal(content)
	if err != nil {
		return nil
	}
	ack, err := l.logs.store.Put(ctx, name, data)
	if err != nil {
		return nil
	}
	return ack
}

// outcome reports whether a record is stored, or the reason why not, as far as that is known before
// wait is closed.
func outcome(ack jetstream.PubAckFuture, wait <-chan struct{}) (stored bool, lost error) {
	select { // a known outcome has precedence over a wait that has ended
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

// closed is a closed channel.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
