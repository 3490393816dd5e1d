package projection

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/headgate/headgate/backbone"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// watchBatch bounds the rows of one message.
	watchBatch = 500
	// watchBeat is how often a watcher hears that the stream is alive.
	watchBeat = 15 * time.Second
	// maxMissed bounds the events that a watcher which comes back is told about;
	// beyond them it gets all rows.
	maxMissed = 10_000
)

// watch is one client's stream.
type watch struct {
	*follower
	service *Service
	view    *model.View
	request query.Request
	scope   string
	plan    query.Plan // all rows that fit
	shared  *planRows
	stream  gatewayv1connect.QueryServiceWatchServerStream
	told    uint64 // the client knows the view up to this sequence
}

// Watch implements QueryService.
func (s *Service) Watch(ctx context.Context, req *projectionv1.WatchRequest, stream gatewayv1connect.QueryServiceWatchServerStream) error {
	f, view, release, err := s.open(ctx, req.GetTenantId(), req.GetView(), req.GetMinPosition())
	if err != nil {
		return err
	}
	release() // rows are entered for each reading: a client that takes nothing holds nothing up
	w := &watch{follower: f, service: s, view: view, stream: stream, scope: f.tenant.String() + "/watch/" + view.Name}
	w.request = query.Request{Filter: req.GetFilter(), Fields: req.GetFields(), PageSize: watchBatch}
	if w.plan, err = query.Compile(view, w.request, f.rows.Dialect(), s.pages, w.scope); err != nil {
		return asConnectError(err)
	}
	w.shared = f.shared.plan(view.Name, req.GetFilter(), req.GetFields())
	// Changes are collected before anything is read, so that none falls between.
	changes, leave, err := f.hub.join(view.Name)
	if err != nil {
		return asConnectError(err)
	}
	defer leave()
	if err := w.begin(ctx, req.GetAfter()); err != nil {
		return asConnectError(err)
	}
	return asConnectError(w.follow(ctx, changes))
}

// begin tells the client what it has missed since a position, or all rows.
func (w *watch) begin(ctx context.Context, after string) error {
	if after == "" {
		return w.snapshot(ctx)
	}
	sequence, err := w.service.positions.Parse(w.tenant, after)
	if err != nil {
		return err
	}
	changed, upTo, ok, err := w.missed(ctx, sequence)
	switch {
	case err != nil:
		return err
	case !ok:
		return w.snapshot(ctx)
	case len(changed) == 0:
		w.told = max(sequence, upTo)
		return w.send(nil, w.told, false)
	}
	return w.tell(ctx, changed, upTo)
}

// snapshot sends all rows, page by page.
func (w *watch) snapshot(ctx context.Context) error {
	first := true
	request := w.request
	for {
		plan, err := query.Compile(w.view, request, w.rows.Dialect(), w.service.pages, w.scope)
		if err != nil {
			return err
		}
		var (
			changes []*projectionv1.Change
			next    string
			last    []any
		)
		sequence, err := w.query(ctx, w.view, plan, func(values, terms []any) error {
			if len(changes) == plan.Limit-1 {
				next, err = w.service.pages.Next(w.scope, request, last)
				return err
			}
			row, err := structOf(plan.Columns, values)
			if err != nil {
				return err
			}
			changes = append(changes, &projectionv1.Change{Key: keyOf(terms), Row: row})
			last = append(last[:0], terms...)
			return nil
		})
		if err != nil {
			return err
		}
		if first {
			w.told = sequence // later pages may be newer; what changed since is told again
		}
		position := w.told
		if next != "" {
			position = 0
		}
		if err := w.send(changes, position, first); err != nil {
			return err
		}
		if next == "" {
			return nil
		}
		first, request.PageToken = false, next
	}
}

// follow tells changes until ctx ends.
func (w *watch) follow(ctx context.Context, changes *watcher) error {
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			if err := w.send(nil, w.told, false); err != nil {
				return err
			}
		case <-changes.ready:
			changed, upTo, err := changes.take()
			if err != nil {
				return err
			}
			if len(changed) == 0 {
				continue // taken together with those before
			}
			if err := w.tell(ctx, changed, upTo); err != nil {
				return err
			}
		}
	}
}

// tell sends the rows that have changed, each with the sequence of its last change,
// as they are now. These are all that have changed up to a journal sequence.
func (w *watch) tell(ctx context.Context, changed map[string]uint64, upTo uint64) error {
	keys := slices.Sorted(maps.Keys(changed))
	for part := range slices.Chunk(keys, watchBatch) {
		found, err := w.shared.find(ctx, part, changed, w.read)
		if err != nil {
			return err
		}
		changes := make([]*projectionv1.Change, len(part))
		for i, key := range part {
			changes[i] = &projectionv1.Change{Key: key, Row: found[key]}
		}
		position := uint64(0)
		if part[len(part)-1] == keys[len(keys)-1] { // before it, parts are missing
			w.told = max(w.told, upTo)
			position = w.told
		}
		if err := w.send(changes, position, false); err != nil {
			return err
		}
	}
	return nil
}

// read returns the rows under keys, and the journal sequence that they are of.
func (w *watch) read(ctx context.Context, keys []string) (map[string]*structpb.Struct, uint64, error) {
	plan := store.Among(w.plan, w.rows.Dialect(), keys)
	found := make(map[string]*structpb.Struct, len(keys))
	sequence, err := w.query(ctx, w.view, plan, func(values, terms []any) error {
		row, err := structOf(plan.Columns, values)
		found[keyOf(terms)] = row
		return err
	})
	return found, sequence, err
}

// send sends a message; position 0 is none.
func (w *watch) send(changes []*projectionv1.Change, position uint64, reset bool) error {
	message := &projectionv1.WatchResponse{Changes: changes, Reset_: reset}
	if position > 0 || !reset && len(changes) == 0 {
		message.Position = w.service.positions.Format(w.tenant, position)
	}
	return w.stream.Send(message)
}

// keyOf is the row's key, the last of an order's terms.
func keyOf(terms []any) string {
	key, _ := terms[len(terms)-1].(string)
	return key
}

// missed returns the keys of the view's rows that events after a sequence
// concern, and up to which; or false if these are too many.
func (w *watch) missed(ctx context.Context, after uint64) (changed map[string]uint64, until uint64, ok bool, err error) {
	until = w.position()
	if after >= until {
		return nil, until, true, nil
	}
	var (
		errEnd  = errors.New("end")
		errMany = errors.New("many")
		touched = touchedRows{}
		count   int
	)
	err = backbone.Follow(ctx, w.journal, w.tenant, after+1, w.prepare, func(ctx context.Context, events []prepared) error {
		for _, event := range events {
			if count++; count > maxMissed {
				return errMany
			}
			if err := w.touch(ctx, event, touched); err != nil {
				return err
			}
			if event.sequence >= until {
				return errEnd
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errMany):
		return nil, 0, false, nil
	case !errors.Is(err, errEnd):
		return nil, 0, false, err
	}
	changed = map[string]uint64{}
	for key := range touched[w.view.Name] {
		changed[key] = until
	}
	return changed, until, true, nil
}
