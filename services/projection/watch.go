package projection

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	positions "github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// watchBatch bounds the rows of one message.
	watchBatch = 500
	// watchBeat is the interval of keep-alive messages to a watcher.
	watchBeat = 15 * time.Second
	// maxMissed bounds the missed events that a resumed watcher is notified of, and maxMissedBytes their data; beyond
	// them it receives all rows.
	maxMissed      = 10_000
	maxMissedBytes = 16 << 20
	// sendWait bounds the wait for other messages of the tenant to be sent.
	sendWait = 5 * time.Second
)

// watch is one client's stream.
type watch struct {
	*follower
	service *Service
	view    *model.View
	plan    query.Plan // all rows that match
	shared  *planRows
	stream  gatewayv1connect.QueryServiceWatchServerStream
	made    uint64 // the fingerprint of the view when the watch started; a change ends the watch
	sent    uint64 // the client knows the view up to this sequence
	least   uint64 // rows that are sent have at least this sequence
	// known is set once all rows that the client knows are among the filter's [matchedKeys].
	known bool
}

// Watch implements QueryService.
func (s *Service) Watch(
	ctx context.Context, req *projectionv1.WatchRequest, stream gatewayv1connect.QueryServiceWatchServerStream,
) error {
	f, view, least, release, err := s.open(ctx, req.GetTenantId(), req.GetView(), req.GetMinPosition())
	if err != nil {
		return err
	}
	release() // each read enters again, so a client that does not read blocks nothing
	w := &watch{
		follower: f,
		service:  s,
		view:     view,
		least:    least,
		stream:   stream,
	}
	request := query.Request{Filter: req.GetFilter(), Fields: req.GetFields(), PageSize: watchBatch}
	if w.plan, err = query.Compile(view, request, f.rows.Dialect()); err != nil {
		return asConnectError(inWatch(err))
	}
	w.shared = f.shared.plan(view.Name, req.GetFilter(), req.GetFields())
	// Collect changes before anything is read, so that none is missed.
	changes, leave, err := f.hub.join(view.Name)
	if err != nil {
		return asConnectError(err)
	}
	defer leave()
	if _, err := f.viewState(
		view.Name,
	); err != nil { // it may have failed before the watcher joined, which then was not ended
		return asConnectError(err)
	}
	w.made = f.fingerprint(view)
	if err := w.begin(ctx, req.GetAfter()); err != nil {
		return asConnectError(err)
	}
	return asConnectError(w.follow(ctx, changes))
}

// begin sends the client the changes since a position, or all rows.
func (w *watch) begin(ctx context.Context, after string) error {
	if after == "" {
		return w.snapshot(ctx)
	}
	sequence, of, err := w.service.parsePosition(w.follower, after)
	switch {
	case errors.Is(err, positions.ErrEpoch):
		return w.snapshot(ctx) // the rows that the client knows may be of events that were lost
	case errors.Is(err, positions.ErrInvalid):
		return &fieldError{"after", err}
	case err != nil:
		return err
	case of != nil && of.Fingerprint != w.made:
		return w.snapshot(ctx) // the rows that the client knows were made by another definition
	case w.lostPosition(sequence):
		return w.snapshot(ctx)
	}
	// Never send older rows than the client knows, which a node that is behind might have.
	if err := w.service.reach(ctx, w.follower, w.view.Name, sequence); err != nil {
		return err
	}
	w.least = max(w.least, sequence)
	w.known = w.shared.matched == nil || of != nil && of.Filter == w.shared.matched.id
	changed, upTo, ok, err := w.missed(ctx, sequence)
	switch {
	case err != nil:
		return err
	case !ok:
		return w.snapshot(ctx)
	case len(changed) == 0:
		w.sent = max(sequence, upTo)
		return w.send(ctx, nil, 0, w.sent, false)
	}
	return w.sendChanges(ctx, changed, upTo, true)
}

// snapshot sends all rows, page by page.
func (w *watch) snapshot(ctx context.Context) error {
	plan := w.plan
	w.known = true
	for first := true; ; first = false {
		var (
			changes []*projectionv1.Change
			page    = w.page()
			more    bool
			last    []any
		)
		state, err := w.query(ctx, w.view, w.least, plan, func(values, terms []any) error {
			row := sharedRow{size: rowSize(plan.Columns, values)}
			if more = len(changes) == plan.Limit-1; more {
				return store.ErrStop
			}
			var err error
			key := keyOf(terms)
			if row.row, err = structOf(key, plan.Columns, values); err != nil {
				return err
			}
			if more = !page.Add(changeSize(key, row)); more {
				return store.ErrStop
			}
			changes = append(changes, &projectionv1.Change{Key: key, Row: row.row})
			if w.shared.matched != nil {
				w.shared.matched.add(key)
			}
			last = append(last[:0], terms...)
			return nil
		})
		if err != nil {
			return err
		}
		if first {
			w.sent = state.Sequence // later pages may be newer; changes since then are sent again
			w.least = max(w.least, w.sent)
		}
		position := w.sent
		if more {
			position = 0
		}
		if err := w.send(ctx, changes, page.Used(), position, first); err != nil {
			return err
		}
		if !more {
			return nil
		}
		plan = w.plan.After(w.rows.Dialect(), last)
	}
}

// page returns the page of an empty message.
func (w *watch) page() *response.Page { return &response.Page{Bytes: w.service.answers.PageBytes()} }

// follow sends changes until ctx ends.
func (w *watch) follow(ctx context.Context, changes *watcher) error {
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			if err := w.send(ctx, nil, 0, w.sent, false); err != nil {
				return err
			}
		case <-changes.ready:
			changed, upTo, err := changes.take()
			if err != nil {
				return err
			}
			if len(changed) == 0 {
				continue // taken together with earlier ones
			}
			if err := w.sendChanges(ctx, changed, upTo, false); err != nil {
				return err
			}
			changes.sent()
		}
	}
}

// sendChanges sends the current state of the rows that have changed, each with the sequence of its last change.
// changed is complete up to a journal sequence. If no row is sent, it sends the position only if always is set;
// otherwise the next message contains it.
func (w *watch) sendChanges(ctx context.Context, changed map[string]uint64, upTo uint64, always bool) error {
	keys := slices.Sorted(maps.Keys(changed))
	w.least = max(w.least, upTo)
	for len(keys) > 0 {
		page := w.page()
		changes, err := w.shared.find(ctx, keys[:min(len(keys), watchBatch)], changed, page, w.read)
		if err != nil {
			return err
		}
		keys = keys[len(changes):]
		var whole bool
		if changes, whole = w.matching(changes); !whole {
			return w.snapshot(ctx)
		}
		position := uint64(0)
		if len(keys) == 0 { // only the last part is complete up to the sequence
			w.sent = max(w.sent, upTo)
			position = w.sent
		}
		if len(changes) == 0 && (position == 0 || !always) {
			continue
		}
		if err := w.send(ctx, changes, page.Used(), position, false); err != nil {
			return err
		}
	}
	return nil
}

// matching returns the changes of rows that the filter selects or has selected for a watcher before. It returns false
// if the client may have a row that the filter no longer selects, and the node cannot know which.
func (w *watch) matching(changes []*projectionv1.Change) ([]*projectionv1.Change, bool) {
	matched := w.shared.matched
	if matched == nil {
		return changes, true
	}
	out := make([]*projectionv1.Change, 0, len(changes))
	for _, change := range changes {
		switch {
		case change.GetRow() != nil:
			matched.add(change.GetKey())
		case matched.has(change.GetKey()):
		case !w.known:
			return nil, false
		default:
			continue
		}
		out = append(out, change)
	}
	return out, true
}

// read implements [readRows].
func (w *watch) read(
	ctx context.Context, keys []string, page response.Page,
) (found map[string]sharedRow, asOf uint64, read int, err error) {
	plan := store.Among(w.plan, w.rows.Dialect(), keys)
	found, read = make(map[string]sharedRow, len(keys)), len(keys)
	state, err := w.query(ctx, w.view, w.least, plan, func(values, terms []any) error {
		key, row := keyOf(terms), sharedRow{size: rowSize(plan.Columns, values)}
		var err error
		if row.row, err = structOf(key, plan.Columns, values); err != nil {
			return err
		}
		if !page.Add(changeSize(key, row)) {
			read, _ = slices.BinarySearch(keys, key) // rows come in the order of their keys
			return store.ErrStop
		}
		found[key] = row
		return nil
	})
	return found, state.Sequence, read, err
}

// send sends a message whose changes have a size in bytes; position 0 means none. The size is charged to the tenant
// until the transport has taken the message. A watcher that waits for longer than sendWait, because other watchers of
// its tenant do not read, ends as if it did not read itself.
func (w *watch) send(ctx context.Context, changes []*projectionv1.Change, size int, position uint64, reset bool) error {
	waiting, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	release, err := w.service.answers.Wait(waiting, w.tenant, size)
	if err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	defer release()
	message := &projectionv1.WatchResponse{Changes: changes, Reset_: reset}
	if state, err := w.viewState(w.view.Name); err == nil {
		message.Incomplete = w.incomplete(w.view, state)
	}
	if position > 0 || !reset && len(changes) == 0 {
		of := positions.View{Fingerprint: w.made}
		if w.known && w.shared.matched != nil {
			of.Filter = w.shared.matched.id
		}
		message.Position = w.positions.FormatView(w.tenant, position, of)
	}
	return w.stream.Send(message)
}

// keyOf returns the row's key, which is the last term of an order.
func keyOf(terms []any) string {
	key, _ := terms[len(terms)-1].(string)
	return key
}

// missed returns the keys of the view's rows that events after a sequence affect, and the sequence up to which they
// are complete; ok is false if there are too many.
func (w *watch) missed(
	ctx context.Context, after uint64,
) (changed map[string]uint64, until uint64, ok bool, err error) {
	until = w.lastApplied()
	if after >= until {
		return nil, until, true, nil
	}
	select { // bound readers, since a reader holds more memory than it has counted
	case w.resumes <- struct{}{}:
		defer func() { <-w.resumes }()
	case <-ctx.Done():
		return nil, 0, false, ctx.Err()
	}
	var (
		errMany = errors.New("many")
		touched = touchedRows{}
		count   int
		bytes   int
	)
	err = w.tail.Read(ctx, w.tenant, after+1, until, func(event journal.Event) error {
		count, bytes = count+1, bytes+len(event.Data)
		if count > maxMissed || bytes > maxMissedBytes {
			return errMany
		}
		p := prepared{}
		var err error
		if p.ref, p.data, p.meta, err = w.follower.read(ctx, event); err != nil && !errors.Is(err, errUnreadable) {
			return err
		}
		p.unreadable = err
		w.touch(ctx, w.view, &p, touched)
		return nil
	})
	switch {
	case errors.Is(err, errMany):
		return nil, 0, false, nil
	case err != nil:
		return nil, 0, false, err
	}
	changed = map[string]uint64{}
	for key := range touched[w.view.Name] {
		changed[key] = until
	}
	return changed, until, true, nil
}
