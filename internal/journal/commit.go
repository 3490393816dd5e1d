package journal

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// maxAlone is the number of single appends in flight before further ones wait.
	maxAlone = 8
	// minGroup is the number of waiting appends that are committed together: a group of any size costs the
	// server as much as about fifteen synced writes.
	minGroup = 24
	// maxGroup and maxGroupBytes bound the messages of a group (JetStream's own bound
	// is 1,000).
	maxGroup      = 256
	maxGroupBytes = 4 << 20
)

// committer publishes appends: a few concurrently as single messages, and waiting ones as one atomic
// batch, which the server syncs to disk once (group commit). Each waits in its caller's goroutine, so that
// their number is bounded by the calls.
type committer struct {
	publish func(ctx context.Context, messages []*nats.Msg) committed
	grouped func(appends int) // called with the number of appends of each stored group
	// maxAlone and minGroup are the constants; an exploration of all interleavings needs smaller ones.
	maxAlone, minGroup int

	mu      sync.Mutex
	alone   int  // in flight as single messages
	busy    bool // a group is in flight
	waiting []*commit
	// refused are appends of a group that the server refused. They are published alone, before
	// others.
	refused []*commit
}

// commit is the messages of one append, all of one aggregate. It is notified of the outcome, or
// that it must publish them itself.
type commit struct {
	messages []*nats.Msg
	turn     chan struct{}
	done     chan committed
}

// committed is the outcome of an append.
type committed struct {
	last      uint64 // sequence of the last one
	duplicate bool
	err       error
}

// commit publishes the messages, all or none.
func (c *committer) commit(ctx context.Context, messages []*nats.Msg) committed {
	c.mu.Lock()
	if c.alone < c.maxAlone && !c.busy {
		c.alone++
		c.mu.Unlock()
		return c.publishAlone(ctx, messages)
	}
	own := &commit{messages: messages, turn: make(chan struct{}, 1), done: make(chan committed, 1)}
	c.waiting = append(c.waiting, own)
	c.mu.Unlock()
	return c.await(ctx, own)
}

// await returns the outcome of an append that waits for its turn or its group.
func (c *committer) await(ctx context.Context, own *commit) committed {
	select {
	case result := <-own.done:
		return result
	case <-own.turn:
		return c.publishAlone(ctx, own.messages)
	case <-ctx.Done():
		if c.leave(own) {
			return committed{err: ctx.Err()}
		}
	}
	// It is part of a group, whose outcome is known within natsclient.AckTimeout.
	select {
	case result := <-own.done:
		return result
	case <-own.turn:
		return c.publishAlone(ctx, own.messages) // which returns the error of ctx
	}
}

// leave removes an append from the queues, and reports whether it was in one. Otherwise it is in a
// group, or it is its turn.
func (c *committer) leave(own *commit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, queue := range []*[]*commit{&c.refused, &c.waiting} {
		if at := slices.Index(*queue, own); at >= 0 {
			*queue = slices.Delete(*queue, at, at+1)
			return true
		}
	}
	return false
}

// publishAlone publishes messages that alone has been counted for.
func (c *committer) publishAlone(ctx context.Context, messages []*nats.Msg) committed {
	defer func() { //nolint:contextcheck // a group outlives each of its callers
		c.mu.Lock()
		defer c.mu.Unlock()
		c.alone--
		c.next()
	}()
	return c.publish(ctx, messages)
}

// next wakes waiting appends. It is called with the lock held.
func (c *committer) next() {
	if c.busy {
		return
	}
	if n := c.group(); n >= c.minGroup && len(c.refused) == 0 {
		c.busy = true
		go c.publishGroup(slices.Clone(c.waiting[:n]))
		c.waiting = slices.Delete(c.waiting, 0, n)
		return
	}
	for _, queue := range []*[]*commit{&c.refused, &c.waiting} {
		for c.alone < c.maxAlone && len(*queue) > 0 {
			c.alone++
			(*queue)[0].turn <- struct{}{}
			*queue = slices.Delete(*queue, 0, 1)
		}
	}
}

// group returns the number of waiting appends that are committed together.
func (c *committer) group() int {
	count, size := 0, 0
	for n, one := range c.waiting {
		for _, msg := range one.messages {
			count, size = count+1, size+msg.Size()
		}
		if count > maxGroup || size > maxGroupBytes {
			return n
		}
	}
	return len(c.waiting)
}

// publishGroup publishes the messages of appends as one batch. When the server refuses it, or a
// message exceeds the server's max_payload, nothing of it is written: each append is then published
// alone, so that only the cause fails.
func (c *committer) publishGroup(group []*commit) {
	var messages []*nats.Msg
	for _, one := range group {
		messages = append(messages, one.messages...)
	}
	result := c.publish(context.Background(), messages) // no caller's context: the group outlives each caller
	var refusal jetstream.JetStreamError
	refused := errors.As(result.err, &refusal) && refusal.APIError() != nil || errors.Is(result.err, nats.ErrMaxPayload)
	if result.err == nil {
		c.grouped(len(group))
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	last := result.last - uint64(len(messages))
	for _, one := range group {
		last += uint64(len(one.messages))
		if refused {
			for _, msg := range one.messages {
				for _, name := range []string{
					jetstreamext.BatchIDHeader, jetstreamext.BatchSeqHeader, jetstreamext.BatchCommitHeader,
				} {
					msg.Header.Del(name)
				}
			}
			c.refused = append(c.refused, one)
		} else {
			one.done <- committed{last: last, err: result.err}
		}
	}
	c.next()
}
