package journal

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// maxUnreadable bounds the messages that are no events that a process lists; it counts the others.
const maxUnreadable = 1000

// unreadableEvery is the least time between two log lines about messages that are no events.
const unreadableEvery = 10 * time.Second

// unreadable counts, logs and lists messages that are no events.
type unreadable struct {
	mu     sync.Mutex
	log    *zerolog.Logger // nil: Run has not begun
	next   time.Time       // of the next line
	silent int             // messages without a line since the last one
	met    map[Fault]uint64

	// By the last reading of the whole journal, and the present one: see [scrubber].
	known, found []*UnreadableError
	count, more  int
	// dropped are the sequences of messages that were declared no events since the present reading began, which does
	// not know these declarations.
	dropped map[uint64]bool
}

func (u *unreadable) logTo(log *zerolog.Logger) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = log
}

// meet counts a message, and logs it unless another was logged just before.
func (u *unreadable) meet(e *UnreadableError) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.met == nil {
		u.met = map[Fault]uint64{}
	}
	u.met[e.Fault]++
	now := time.Now()
	if u.log == nil || now.Before(u.next) {
		u.silent++
		return
	}
	u.log.Warn().Err(
		e,
	).Str(
		"tenant",
		e.Tenant.String(),
	).Uint64(
		"sequence",
		e.Sequence,
	).Str(
		"fault",
		string(e.Fault),
	).Int(
		"others",
		u.silent,
	).
		Msg(
			"a message of the journal is no event",
		)
	u.next, u.silent = now.Add(unreadableEvery), 0
}

// find lists a message for the present reading of the journal.
func (u *unreadable) find(e *UnreadableError) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dropped[e.Sequence] {
		return
	}
	if u.more++; len(u.found) < maxUnreadable {
		u.found = append(u.found, e)
	}
}

// drop removes a message that is declared no event.
func (u *unreadable) drop(e *UnreadableError) {
	u.mu.Lock()
	defer u.mu.Unlock()
	same := func(other *UnreadableError) bool { return other.Sequence == e.Sequence }
	before := len(u.known)
	if u.known = slices.DeleteFunc(u.known, same); len(u.known) < before {
		u.count--
	}
	before = len(u.found)
	if u.found = slices.DeleteFunc(u.found, same); len(u.found) < before {
		u.more--
	}
	if u.dropped == nil {
		u.dropped = map[uint64]bool{}
	}
	u.dropped[e.Sequence] = true
}

// read ends a reading of the journal.
func (u *unreadable) read() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known, u.count = u.found, u.more
	u.found, u.more, u.dropped = nil, 0, nil
}

// list returns the messages that the last complete reading found, and further ones that the current
// reading has found after them, and the number of all.
func (u *unreadable) list() ([]*UnreadableError, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := uint64(0)
	if len(u.known) > 0 {
		last = u.known[len(u.known)-1].Sequence
	}
	all, count := slices.Clone(u.known), u.count
	for _, e := range u.found {
		if e.Sequence > last {
			all, count = append(all, e), count+1
		}
	}
	return all, count
}

// Unreadable counts and logs a message that is no event, and that is passed over.
func (j *Journal) Unreadable(e *UnreadableError) { j.health.unreadable.meet(e) }

// KnownUnreadable returns messages that are no events and were not declared so, in order, and their
// number: messages that the scrub of the whole journal has found (see [Integrity.Run]), of which at
// most 1,000 are listed.
func (i *Integrity) KnownUnreadable() ([]*UnreadableError, int) { return i.unreadable.list() }

var (
	unreadableMetric = prometheus.NewDesc(
		"headgate_journal_unreadable_total",
		"Messages of the journal that are no events, by fault, each time that this process has met one.",
		[]string{"fault"},
		nil,
	)
	undeclaredMetric = prometheus.NewDesc(
		"headgate_journal_unreadable_messages",
		"Messages of the journal that are no events and that no operator has declared to be none. Control finds them "+
			"when it reads the whole journal.",
		nil,
		nil,
	)
)

func (u *unreadable) collect(metrics chan<- prometheus.Metric) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, fault := range Faults() {
		metrics <- prometheus.MustNewConstMetric(unreadableMetric, prometheus.CounterValue, float64(u.met[fault]),
			string(fault))
	}
	metrics <- prometheus.MustNewConstMetric(undeclaredMetric, prometheus.GaugeValue, float64(u.count))
}
