package tail_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/tail"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// world is a journal with a tail that runs.
type world struct {
	t       *testing.T
	js      jetstream.JetStream
	journal *journal.Journal
	tail    *tail.Tail

	mu     sync.Mutex
	events map[string][]uint64 // sequences that were appended, by tenant
}

func start(t *testing.T, config tail.Config) *world {
	t.Helper()
	js := natstest.Start(t)
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	config.Name = "test"
	w := &world{
		t:       t,
		js:      js,
		journal: journal,
		tail:    tail.New(js, journal, config),
		events:  map[string][]uint64{},
	}
	w.run()
	return w
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.tail.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
}

// append appends an event of a wallet, or of another type of aggregate.
func (w *world) append(tenant contextkit.TenantID, types ...string) uint64 {
	w.t.Helper()
	aggregate := "wallet"
	if len(types) > 0 {
		aggregate = types[0]
	}
	events := []journal.Event{{
		ID: contextkit.NewID(), Type: "deposited", AggregateType: aggregate, AggregateID: contextkit.NewID(),
		Version: 1, Time: time.Now(), Data: []byte(`{}`),
	}}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.journal.Append(contextkit.TenantContext(w.t.Context(), tenant), tenant, 0, events); err != nil {
		w.t.Fatal(err)
	}
	w.events[tenant.String()] = append(w.events[tenant.String()], events[0].Sequence)
	return events[0].Sequence
}

// want returns what was appended for a tenant.
func (w *world) want(tenant contextkit.TenantID) []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events[tenant.String()])
}

// consumers returns the number of consumers of EVENTS.
func (w *world) consumers() int {
	w.t.Helper()
	stream, err := w.js.Stream(w.t.Context(), streams.Events)
	if err != nil {
		w.t.Fatal(err)
	}
	return stream.CachedInfo().State.Consumers
}

// recorder is a handler with a durable cursor that records what it has applied.
type recorder struct {
	t      *testing.T
	tenant contextkit.TenantID
	add    func(sequence uint64) error // nil: nothing fails
	apply  func(ctx context.Context, sequences []uint64) error

	mu       sync.Mutex
	applied  []uint64
	batches  int
	failed   error
	reported int
	changed  chan struct{}
}

func newRecorder(t *testing.T, tenant contextkit.TenantID) *recorder {
	return &recorder{t: t, tenant: tenant, changed: make(chan struct{})}
}

func (r *recorder) Cursor(context.Context) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last(), nil
}

func (r *recorder) last() uint64 {
	if len(r.applied) == 0 {
		return 0
	}
	return r.applied[len(r.applied)-1]
}

func (r *recorder) Batch() tail.Batch { return &recorded{r: r} }

func (r *recorder) Report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = err
	r.reported++
	r.notify()
}

func (r *recorder) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// until waits until condition holds, which is called with r.mu held.
func (r *recorder) until(condition func() bool) {
	r.t.Helper()
	for {
		r.mu.Lock()
		holds, changed := condition(), r.changed
		r.mu.Unlock()
		if holds {
			return
		}
		select {
		case <-changed:
		case <-r.t.Context().Done():
			r.t.Fatal("the test has ended")
		}
	}
}

// has waits until exactly these sequences have been applied.
func (r *recorder) has(want []uint64) {
	r.t.Helper()
	r.until(func() bool { return len(r.applied) >= len(want) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.applied, want) {
		r.t.Fatalf("%s: applied %v, want %v", r.tenant, r.applied, want)
	}
}

type recorded struct {
	r         *recorder
	sequences []uint64
}

func (b *recorded) Add(_ context.Context, event journal.Event) error {
	if event.Context.TenantID != b.r.tenant {
		return errors.New("an event of another tenant")
	}
	if b.r.add != nil {
		if err := b.r.add(event.Sequence); err != nil {
			return err
		}
	}
	b.sequences = append(b.sequences, event.Sequence)
	return nil
}

func (b *recorded) Apply(ctx context.Context) error {
	if b.r.apply != nil {
		if err := b.r.apply(ctx, b.sequences); err != nil {
			return err
		}
	}
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.r.applied = append(b.r.applied, b.sequences...)
	b.r.batches++
	b.r.notify()
	return nil
}

func tenants(t *testing.T, n int) []contextkit.TenantID {
	t.Helper()
	list := make([]contextkit.TenantID, n)
	for i := range list {
		list[i] = natstest.Tenant(t, fmt.Sprintf("t%05d", i))
	}
	return list
}

func TestSubscription_ReadsWhatWasBeforeAndWhatComes(t *testing.T) {
	w := start(t, tail.Config{})
	ids := tenants(t, 3)
	for range 20 {
		for _, id := range ids {
			w.append(id)
		}
	}
	var handlers []*recorder
	for i, id := range ids {
		r := newRecorder(t, id)
		r.applied = w.want(id)[:i*10] // its cursor: nothing, half, everything
		w.tail.Subscribe(id, r, tail.Options{})
		handlers = append(handlers, r)
	}
	for range 20 {
		for _, id := range ids {
			w.append(id)
		}
	}
	for i, id := range ids {
		handlers[i].has(w.want(id))
	}
}

func TestSubscription_SeveralOfOneTenant(t *testing.T) {
	w := start(t, tail.Config{})
	id := tenants(t, 1)[0]
	first, second := newRecorder(t, id), newRecorder(t, id)
	w.append(id)
	w.tail.Subscribe(id, first, tail.Options{})
	w.append(id)
	first.has(w.want(id))
	s := w.tail.Subscribe(id, second, tail.Options{})
	w.append(id)
	first.has(w.want(id))
	second.has(w.want(id))
	s.Stop()
	was := w.want(id)
	w.append(id)
	first.has(w.want(id))
	second.has(was)
}

func TestSubscription_SkipsMessagesThatAreNotAccepted(t *testing.T) {
	w := start(t, tail.Config{})
	id := tenants(t, 1)[0]
	var want []uint64
	for i := range 30 {
		if i%3 == 0 {
			want = append(want, w.append(id, "order"))
		} else {
			w.append(id)
		}
	}
	r := newRecorder(t, id)
	s := w.tail.Subscribe(id, r, tail.Options{Accept: func(aggregate string) bool { return aggregate == "order" }})
	r.has(want)
	w.append(id)
	want = append(want, w.append(id, "order"))
	r.has(want)
	last := w.append(id)
	other := newRecorder(t, id)
	w.tail.Subscribe(id, other, tail.Options{})
	other.has(w.want(id)) // so the tail has seen the last one
	if got := s.Delivered(); got != last {
		t.Errorf("delivered %d, want %d", got, last)
	}
}

func TestSubscription_PauseInsideApplyAndResume(t *testing.T) {
	w := start(t, tail.Config{})
	id := tenants(t, 1)[0]
	r := newRecorder(t, id)
	var s *tail.Subscription
	ready := make(chan struct{})
	r.apply = func(context.Context, []uint64) error {
		<-ready
		s.Pause()
		return nil
	}
	for range 10 {
		w.append(id)
	}
	s = w.tail.Subscribe(id, r, tail.Options{Events: 4})
	close(ready)
	// A batch has up to 4 events: fewer if the reader is slow.
	applied := 0
	for batch := 1; applied < 11; batch++ {
		r.until(func() bool { return r.batches >= batch })
		r.mu.Lock()
		batches, total := r.batches, len(r.applied)
		r.mu.Unlock()
		if batches != batch || total <= applied || total > applied+4 {
			t.Fatalf("%d events are applied in %d batches, want 1 to 4 more than %d in %d", total, batches, applied,
				batch)
		}
		applied = total
		if batch == 1 {
			w.append(id)
		}
		s.Resume()
	}
	r.has(w.want(id))
}

// forgetful is a recorder whose first batch takes no effect, and has the cursor read again.
type forgetful struct {
	*recorder

	subscription chan *tail.Subscription
	added        chan uint64
	forgot       bool
}

func (f *forgetful) Batch() tail.Batch { return &forgotten{recorded{r: f.recorder}, f} }

type forgotten struct {
	recorded

	of *forgetful
}

func (b *forgotten) Apply(ctx context.Context) error {
	if b.of.forgot {
		return b.recorded.Apply(ctx)
	}
	b.of.forgot = true
	for added := uint64(0); added <= b.sequences[0]; { // the batch that follows is made ready concurrently
		select {
		case added = <-b.of.added:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	(<-b.of.subscription).Reset()
	return nil
}

func TestSubscription_ResetInsideApplyPassesNoEventOver(t *testing.T) {
	w := start(t, tail.Config{})
	id := tenants(t, 1)[0]
	f := &forgetful{
		recorder:     newRecorder(t, id),
		subscription: make(chan *tail.Subscription, 1),
		added:        make(chan uint64, 100),
	}
	f.add = func(sequence uint64) error {
		f.added <- sequence
		return nil
	}
	for range 3 {
		w.append(id)
	}
	f.subscription <- w.tail.Subscribe(id, f, tail.Options{Events: 1})
	f.until(func() bool { return len(f.applied) >= 2 })
	f.mu.Lock()
	first := f.applied[0]
	f.mu.Unlock()
	if all := w.want(id); first != all[0] {
		t.Fatalf("the event at %d is applied first, and not the one at %d", first, all[0])
	}
	f.has(w.want(id))
}

func TestSubscription_FailureIsReportedAndTriedAgain(t *testing.T) {
	w := start(t, tail.Config{})
	ids := tenants(t, 2)
	bad, good := newRecorder(t, ids[0]), newRecorder(t, ids[1])
	for range 5 {
		w.append(ids[0])
		w.append(ids[1])
	}
	poison := w.want(ids[0])[3]
	errPoison := errors.New("poison")
	var cured sync.Map
	bad.add = func(sequence uint64) error {
		if _, ok := cured.Load("cured"); !ok && sequence == poison {
			return errPoison
		}
		return nil
	}
	w.tail.Subscribe(ids[0], bad, tail.Options{})
	w.tail.Subscribe(ids[1], good, tail.Options{})
	good.has(w.want(ids[1]))
	bad.until(func() bool { return errors.Is(bad.failed, errPoison) })
	bad.has(w.want(ids[0])[:3]) // those before it
	w.append(ids[1])
	good.has(w.want(ids[1]))
	cured.Store("cured", true)
	bad.has(w.want(ids[0]))
	bad.until(func() bool { return bad.failed == nil })
}

func TestTail_StuckTenantsHoldUpNoOthers(t *testing.T) {
	w := start(t, tail.Config{
		Sessions:    2,
		QueueEvents: 8,
		TotalBytes:  256 << 10,
		Overdue:     50 * time.Millisecond,
	})
	ids := tenants(t, 12)
	release := make(chan struct{})
	var handlers []*recorder
	for i, id := range ids {
		r := newRecorder(t, id)
		if i < 8 { // more than there are sessions
			r.apply = func(ctx context.Context, _ []uint64) error {
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		w.tail.Subscribe(id, r, tail.Options{Events: 4})
		handlers = append(handlers, r)
	}
	for range 50 {
		for _, id := range ids {
			w.append(id)
		}
	}
	for i, id := range ids[8:] {
		handlers[8+i].has(w.want(id))
	}
	close(release)
	for i, id := range ids {
		handlers[i].has(w.want(id))
	}
}

func TestTail_DeliversEachEventOnceInOrderUnderFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, seed))
			w := start(t, tail.Config{
				Sessions:    3,
				QueueEvents: 6,
				QueueBytes:  64 << 10,
				TotalBytes:  128 << 10,
				Overdue:     20 * time.Millisecond,
			})
			ids := tenants(t, 8)
			handlers := map[contextkit.TenantID]*recorder{}
			subs := map[contextkit.TenantID]*tail.Subscription{}
			var faults sync.Mutex // guards random
			chance := func(of int) bool {
				faults.Lock()
				defer faults.Unlock()
				return random.IntN(of) == 0
			}
			for _, id := range ids {
				for range 20 {
					w.append(id)
				}
				r := newRecorder(t, id)
				r.apply = func(ctx context.Context, _ []uint64) error {
					switch {
					case chance(20):
						return errors.New("apply failed")
					case chance(10): // it stalls until another tenant has applied something
						other := handlers[ids[0]]
						if other == r {
							return nil
						}
						other.mu.Lock()
						changed := other.changed
						other.mu.Unlock()
						select {
						case <-changed:
						case <-ctx.Done():
						case <-time.After(60 * time.Millisecond): // if none does
						}
					}
					return ctx.Err()
				}
				r.add = func(uint64) error {
					if chance(60) {
						return errors.New("add failed")
					}
					return nil
				}
				handlers[id] = r
			}
			for _, id := range ids {
				faults.Lock() // the handlers of the tenants before this one run already
				events := 1 + random.IntN(6)
				faults.Unlock()
				subs[id] = w.tail.Subscribe(id, handlers[id], tail.Options{Events: events})
			}
			for range 400 {
				faults.Lock()
				id, action := ids[random.IntN(len(ids))], random.IntN(60)
				faults.Unlock()
				switch {
				case action < 4:
					subs[id].Pause()
				case action < 10:
					subs[id].Resume()
				case action == 10:
					subs[id].Stop()
					subs[id] = w.tail.Subscribe(id, handlers[id], tail.Options{Events: 3})
				case action == 13:
					subs[id].Reset()
				case action == 11:
					w.deleteConsumers()
				case action == 12:
					if err := w.js.Conn().ForceReconnect(); err != nil {
						t.Fatal(err)
					}
					w.connected()
				default:
					w.append(id)
				}
			}
			for _, id := range ids {
				subs[id].Resume()
			}
			for _, id := range ids {
				handlers[id].has(w.want(id))
			}
		})
	}
}

// connected waits until the connection is there and its stream answers.
func (w *world) connected() {
	for {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		_, err := w.js.Stream(ctx, streams.Events)
		cancel()
		if err == nil {
			return
		}
		if w.t.Context().Err() != nil {
			w.t.Fatal(err)
		}
	}
}

// deleteConsumers deletes every consumer of the journal, as the loss of a server does.
func (w *world) deleteConsumers() {
	stream, err := w.js.Stream(w.t.Context(), streams.Events)
	if err != nil {
		w.t.Fatal(err)
	}
	names := stream.ConsumerNames(w.t.Context())
	for name := range names.Name() {
		if err := stream.DeleteConsumer(w.t.Context(), name); err != nil &&
			!errors.Is(err, jetstream.ErrConsumerNotFound) {
			w.t.Fatal(err)
		}
	}
}

// maxConsumers is the most that a tail has: the tail, and two readers of each kind.
const maxConsumers = 7

func TestTail_ThousandsOfTenantsWithDefaultLimits(t *testing.T) {
	w := start(t, tail.Config{})
	ids := tenants(t, 3000)
	for i, id := range ids {
		if i%3 != 0 {
			w.append(id)
		}
	}
	before := runtime.NumGoroutine()
	var handlers []*recorder
	for _, id := range ids {
		r := newRecorder(t, id)
		w.tail.Subscribe(id, r, tail.Options{})
		handlers = append(handlers, r)
	}
	for i, id := range ids {
		handlers[i].has(w.want(id))
		if i%500 == 0 {
			if n := w.consumers(); n > maxConsumers {
				t.Fatalf("%d consumers, want at most %d", n, maxConsumers)
			}
		}
	}
	for i, id := range ids {
		if i%3 != 1 {
			w.append(id)
		}
	}
	for i, id := range ids {
		handlers[i].has(w.want(id))
	}
	if after := runtime.NumGoroutine(); after > before+100 {
		t.Errorf("%d goroutines for %d idle tenants", after-before, len(ids))
	}
	if n := w.consumers(); n > maxConsumers {
		t.Errorf("%d consumers, want at most %d", n, maxConsumers)
	}
}

func TestRead_ThousandsShareConsumers(t *testing.T) {
	w := start(t, tail.Config{})
	ids := tenants(t, 50)
	for range 10 {
		for _, id := range ids {
			w.append(id)
		}
	}
	var readers sync.WaitGroup
	for i := range 1500 {
		id := ids[i%len(ids)]
		all := w.want(id)
		from, until := all[i%5], all[5+i%5]
		readers.Go(func() {
			var got []uint64
			if err := w.tail.Read(t.Context(), id, from, until, func(e journal.Event) error {
				got = append(got, e.Sequence)
				return nil
			}); err != nil {
				t.Errorf("read: %v", err)
			}
			if want := all[i%5 : 6+i%5]; !slices.Equal(got, want) {
				t.Errorf("read %v, want %v", got, want)
			}
		})
	}
	for range 20 {
		if n := w.consumers(); n > maxConsumers {
			t.Errorf("%d consumers, want at most %d", n, maxConsumers)
		}
	}
	readers.Wait()
}

func TestRead_EndsWithItsContextAndWithAnError(t *testing.T) {
	w := start(t, tail.Config{})
	id := tenants(t, 1)[0]
	for range 5 {
		w.append(id)
	}
	errEnough := errors.New("enough")
	if err := w.tail.Read(t.Context(), id, 1, 5, func(e journal.Event) error {
		if e.Sequence == 3 {
			return errEnough
		}
		return nil
	}); !errors.Is(err, errEnough) {
		t.Errorf("err = %v, want %v", err, errEnough)
	}
	// Reads of an event that does not come occupy the readers only until they are given up.
	var readers sync.WaitGroup
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		readers.Go(func() {
			if err := w.tail.Read(ctx, id, 1, 100, func(e journal.Event) error {
				if e.Sequence == 5 {
					cancel()
				}
				return nil
			}); !errors.Is(err, context.Canceled) {
				t.Errorf("err = %v, want %v", err, context.Canceled)
			}
		})
	}
	readers.Wait()
	if err := w.tail.Read(t.Context(), id, 1, 5, func(journal.Event) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestTail_AnotherJournalIsNotFollowed(t *testing.T) {
	w := start(t, tail.Config{})
	id := tenants(t, 1)[0]
	r := newRecorder(t, id)
	w.append(id)
	w.append(id)
	w.tail.Subscribe(id, r, tail.Options{})
	want := w.want(id)
	r.has(want)
	if err := w.js.DeleteStream(t.Context(), streams.Events); err != nil {
		t.Fatal(err)
	}
	if err := setup.Ensure(t.Context(), w.js, 1); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		w.append(id)
	}
	for !errors.Is(w.tail.Err(), tail.ErrReplaced) {
		if t.Context().Err() != nil {
			t.Fatalf("err = %v, want %v", w.tail.Err(), tail.ErrReplaced)
		}
		runtime.Gosched()
	}
	r.has(want)
}

func TestTail_SubjectsMayChange(t *testing.T) {
	w := start(t, tail.Config{Subjects: []string{"events.*.order.*"}})
	id := tenants(t, 1)[0]
	orders := newRecorder(t, id)
	accept := func(aggregate string) bool { return aggregate != "note" }
	w.tail.Subscribe(id, orders, tail.Options{Accept: accept})
	want := []uint64{w.append(id, "order")}
	orders.has(want)
	w.tail.SetSubjects([]string{"events.*.order.*", "events.*.wallet.*"})
	want = append(want, w.append(id, "order"))
	orders.has(want)
	for len(want) < 10 {
		want = append(want, w.append(id, "wallet"), w.append(id, "order"))
	}
	orders.has(want)
}

// slowStart is a recorder whose cursor is read when gate lets it, and that records the order in
// which the cursors of several are read.
type slowStart struct {
	*recorder
	gate  <-chan struct{}
	asked chan<- contextkit.TenantID
}

func (s *slowStart) Cursor(ctx context.Context) (uint64, error) {
	s.asked <- s.tenant
	select {
	case <-s.gate:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return s.recorder.Cursor(ctx)
}

func TestSubscription_OneForWhichACallWaitsIsStartedBeforeOthers(t *testing.T) {
	w := start(t, tail.Config{Overdue: time.Hour})
	gate, asked := make(chan struct{}), make(chan contextkit.TenantID, 100)
	var subs []*tail.Subscription
	var ids []contextkit.TenantID
	for n := range 40 {
		id := natstest.Tenant(t, fmt.Sprintf("t%02d", n))
		ids = append(ids, id)
		subs = append(subs, w.tail.Subscribe(id, &slowStart{newRecorder(t, id), gate, asked}, tail.Options{}))
	}
	for range 8 { // as many as are concurrently read
		natstest.Await(t, asked, "eight cursors are read")
	}
	subs[39].Hasten()
	subs[39].Hasten()
	subs[0].Hasten()   // it is being read
	gate <- struct{}{} // one of them ends, so that one other begins
	if next := natstest.Await(t, asked, "other cursor is read"); next != ids[39] {
		t.Errorf("next event is %s, want %s", next, ids[39])
	}
	close(gate)
	seen := map[contextkit.TenantID]bool{}
	for range 31 {
		next := natstest.Await(t, asked, "every cursor is read")
		if seen[next] || next == ids[39] {
			t.Errorf("%s is read again", next)
		}
		seen[next] = true
	}
	for _, s := range subs {
		s.Stop()
	}
	select {
	case again := <-asked:
		t.Errorf("%s is read again", again)
	default:
	}
}
