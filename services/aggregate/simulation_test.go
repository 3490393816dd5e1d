package aggregate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/usage"
	"github.com/headgate/headgate/services/aggregate/idempotency"
	"github.com/headgate/headgate/services/aggregate/tenantcache"
)

// The simulation runs two nodes, each the real [Service], on a journal in memory, and decides when each request of a
// node to the journal is executed, and with which outcome. See [TestSubmit_EveryInterleavingOfTwoNodes].

// request is a request of a node to the journal that has no answer yet.
type request struct {
	client int
	name   string // "append" or "load"
	// execute executes it and returns the answer; it is called with the current journal. stale is the number of
	// events, the newest, that the server which answers does not have.
	execute func(stale int) error
	// leave lets the request of an append arrive later, or never.
	leave  func()
	answer chan error
}

// letter is an append that is under way although its node does not wait for it any more.
type letter struct {
	key      string // idempotency key
	expected uint64
	events   []journal.Event
}

// journalState is the journal in memory: the events of one aggregate, whose sequences are 1, 2, ….
type journalState struct {
	mu       sync.Mutex
	events   []journal.Event
	recent   map[string]bool // the keys in JetStream's deduplication window
	late     []letter
	requests []*request
	flaw     flaw
}

// flaw is a change of a transition that some exploration must find.
type flaw string

const (
	flawNone flaw = ""
	// flawKeysForgotten: events are read without their idempotency keys.
	flawKeysForgotten flaw = "keys are lost"
	// flawUnconditional: the journal does not compare the last sequence that a decision was made on.
	flawUnconditional flaw = "appends are unconditional"
	// flawAcknowledged: an append that is under way is acknowledged.
	flawAcknowledged flaw = "appends are acknowledged before they are stored"
)

var (
	errNoAnswer = errors.New("no acknowledgement")
	errCrashed  = errors.New("the node has crashed")
)

// append executes an append, as JetStream does.
func (j *journalState) append(l letter) (uint64, error) {
	switch {
	case j.recent[l.key]:
		return 0, journal.ErrDuplicate
	case l.expected != uint64(len(j.events)) && j.flaw != flawUnconditional:
		return 0, journal.ErrConflict
	}
	for _, event := range l.events {
		event.Sequence = uint64(len(j.events)) + 1
		j.events = append(j.events, event)
	}
	j.recent[l.key] = true
	return uint64(len(j.events)), nil
}

// simulatedJournal is a node's access to the journal.
type simulatedJournal struct {
	*journalState

	health  *journal.Integrity
	crashed chan struct{}
}

type clientKey struct{}

// ask waits until the scheduler has executed a request.
func (j *simulatedJournal) ask(ctx context.Context, r *request) error {
	r.client, r.answer = ctx.Value(clientKey{}).(int), make(chan error, 1)
	j.mu.Lock()
	j.requests = append(j.requests, r)
	j.mu.Unlock()
	select {
	case err := <-r.answer:
		return err
	case <-j.crashed:
		j.mu.Lock()
		defer j.mu.Unlock()
		if at := slices.Index(j.requests, r); at >= 0 {
			j.requests = slices.Delete(j.requests, at, at+1)
			r.leave()
		}
		return errCrashed
	}
}

func (j *simulatedJournal) Append(
	ctx context.Context, _ contextkit.TenantID, last uint64, events []journal.Event,
) error {
	l := letter{events[0].Command.IdempotencyKey, last, slices.Clone(events)}
	return j.ask(ctx, &request{
		name: "append",
		execute: func(int) error {
			end, err := j.append(l)
			for n := range events {
				events[n].Sequence = end - uint64(len(events)-1-n)
			}
			return err
		},
		leave: func() { j.late = append(j.late, l) },
	})
}

func (j *simulatedJournal) LoadAll(
	ctx context.Context, _ contextkit.TenantID, _, _ string, from uint64, each func(journal.Event) error,
	_ ...func(*journal.UnreadableError),
) (last uint64, version int64, err error) {
	var found []journal.Event
	err = j.ask(ctx, &request{name: "load", leave: func() {}, execute: func(stale int) error {
		found = slices.Clone(j.events[:max(0, len(j.events)-stale)])
		return nil
	}})
	for _, event := range found {
		last, version = event.Sequence, event.Version
		if j.flaw == flawKeysForgotten {
			event.Command = journal.CommandRef{}
		}
		if event.Sequence >= from && err == nil {
			err = each(event)
		}
	}
	return last, version, err
}

// Load reads the answer of a known key, which any replica that has it can give: the scheduler does not see it.
func (j *simulatedJournal) Load(
	_ context.Context, _ contextkit.TenantID, _, _ string, from uint64, most int, each func(journal.Event) error,
	_ ...func(*journal.UnreadableError),
) error {
	j.mu.Lock()
	found := slices.Clone(j.events[from-1 : min(int(from)-1+most, len(j.events))])
	j.mu.Unlock()
	for _, event := range found {
		if err := each(event); err != nil {
			return err
		}
	}
	return nil
}

func (j *simulatedJournal) Count(context.Context, contextkit.TenantID, string, string) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(len(j.events)), nil
}

func (j *simulatedJournal) Declared(context.Context, *journal.UnreadableError) (bool, error) {
	return false, nil
}

// Confirm confirms: a read from a deposed leader is within the bound.
func (j *simulatedJournal) Confirm(context.Context) error { return nil }

// While is called for what is stored beside the journal, and may be lost: snapshots.
func (j *simulatedJournal) While(context.Context, func(context.Context) error) error {
	return errNoAnswer
}
func (j *simulatedJournal) Epoch() int64                  { return 1 }
func (j *simulatedJournal) Replicated() bool              { return true }
func (j *simulatedJournal) Integrity() *journal.Integrity { return j.health }

// unlimited is a [meter] without quotas.
type unlimited struct{ prometheus.Collector }

func (unlimited) Admit(contextkit.TenantID, usage.Counts, bool) (usage.Held, error) {
	return usage.Held{}, nil
}
func (unlimited) Add(contextkit.TenantID, usage.Counts) {}
func (unlimited) Run(context.Context) error             { return nil }

// newNode returns a node that has just started.
func newNode(state *journalState, loaded prometheus.Counter) (*Service, *simulatedJournal) {
	j := &simulatedJournal{journalState: state, health: &journal.Integrity{}, crashed: make(chan struct{})}
	return &Service{
		journal: j,
		usage:   unlimited{},
		loaded:  loaded,
		logs:    idempotency.NewLogs(nil, 1<<20), // no answer leaves the newest here
		cache: tenantcache.New[aggregateKey, *instance](1<<20, func(k aggregateKey) contextkit.TenantID {
			return k.tenant
		}),
	}, j
}

// describe returns the journal's state, without what does not matter to what may come.
func (j *journalState) describe() string {
	var out strings.Builder
	for _, event := range j.events {
		fmt.Fprintf(&out, "%s/%s ", event.Type, event.Command.Fingerprint)
	}
	fmt.Fprintf(&out, "| %v |", slices.Sorted(maps.Keys(j.recent)))
	late := make([]string, 0, len(j.late))
	for _, l := range j.late {
		if l.expected >= uint64(len(j.events)) { // others are refused whenever they arrive
			late = append(late, fmt.Sprintf("%s@%d", l.events[0].Command.Fingerprint, l.expected))
		}
	}
	slices.Sort(late)
	fmt.Fprintf(&out, "%v", late)
	return out.String()
}
