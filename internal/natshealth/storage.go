package natshealth

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// persistentRefusal is the time for which a stream must have no leader, or no server, to count as failing. A change
	// of leaders is shorter.
	persistentRefusal = 5 * time.Second
	// trialTime is the time after which a trial that no append uses ends.
	trialTime = 5 * time.Second
	// silentStream is the time after which an unacknowledged publish counts as a failure of its stream, and silentNodes
	// the time for an announcement, which does not wait longer.
	silentStream, silentNodes = 3 * time.Second, 900 * time.Millisecond
	// suspicionTimeout bounds the request that checks whether a stream without acknowledgements answers.
	suspicionTimeout = time.Second
)

// trialDelays are the times from a failure, or from a trial, until an append is tried again.
var trialDelays = backoff.Delays{First: time.Second, Longest: time.Minute}

// Storage records which streams store published messages, and why others do not. Its sources are the publishes of the
// process ([Storage.Observe]) and an embedded server ([Storage.Declare]).
//
// A failing stream is tried by one append at a time, after delays that grow, and when the connection to NATS is
// restored. A stream that is declared to fail is not tried. For a nil Storage, every stream stores. Its methods may be
// called concurrently.
type Storage struct {
	log     zerolog.Logger
	refused *prometheus.CounterVec
	// trouble is true unless every stream stores, so that a successful publish costs one load.
	trouble  atomic.Bool
	suspects chan string // streams that may not store messages

	mu        sync.Mutex
	failing   map[string]*failure
	denied    map[string]denial // by stream
	declared  map[string]*StorageError
	connected time.Time // when the connection was last restored
	notify    []func()  // called when EVENTS is declared to fail
}

// denial is a publish that NATS has refused because of the user's permissions. Such a publish is not answered.
type denial struct {
	subject string
	at      time.Time
}

// failure is the state of a stream whose publishes fail.
type failure struct {
	StorageError

	counts bool      // the stream is known to fail; before that it is suspected
	last   time.Time // of the newest failure
	began  time.Time // when the last failed publish began
	// answered is when the stream, with its current leader, first answered another request since the failure began;
	// zero: it has not. asked reports that such a request is in progress.
	answered time.Time
	leader   string
	asked    bool
	pause    time.Duration // delay of the trial after the next one
	trial    time.Time     // when the next trial may begin
}

// NewStorage returns a Storage that logs each change of a stream's state once.
func NewStorage(log zerolog.Logger) *Storage {
	s := &Storage{
		log:      log,
		failing:  map[string]*failure{},
		denied:   map[string]denial{},
		suspects: make(chan string, 16),
	}
	s.refused = prometheus.NewCounterVec(
		prometheus.CounterOpts{
			Name: "headgate_appends_refused_total",
			Help: "Appends to the journal that were not stored, or not acknowledged, by reason.",
		},
		[]string{"reason"},
	)
	for reason := range refusalTexts {
		s.refused.WithLabelValues(string(reason))
	}
	return s
}

// Report records the outcome of a publish that began at a time.
func (s *Storage) Report(stream string, began time.Time, err error) {
	if s == nil || stream == "" || err == nil && !s.trouble.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.succeed(stream, began)
		return
	}
	refusal := refusalOf(err)
	if refusal == RefusalNoAck && !s.denied[stream].at.Before(began) {
		refusal = RefusalPermission
	}
	if stream == streams.Events && refusal != "" {
		s.refused.WithLabelValues(string(refusal)).Inc()
	}
	silent := silentStream
	if stream == streams.BucketStream(streams.BucketNodes) {
		silent = silentNodes
	}
	if refusal == "" || began.Before(s.connected) || refusal == RefusalNoAck && time.Since(began) < silent {
		return
	}
	s.fail(stream, refusal, began, err)
}

// deny records an error of the connection: NATS reports a missing permission this way.
func (s *Storage) deny(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	_, subject, found := strings.Cut(err.Error(), `Publish to "`)
	subject, _, _ = strings.Cut(subject, `"`)
	stream := streamOf(subject)
	if !found || stream == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[stream] = denial{subject, time.Now()}
}

// succeed records a publish that was stored. The caller holds the lock.
func (s *Storage) succeed(stream string, began time.Time) {
	f := s.failing[stream]
	if f == nil || began.Before(f.last) && f.Refusal == RefusalNoAck {
		return
	}
	delete(s.failing, stream)
	s.troubled()
	if f.counts {
		s.log.Warn().Str("stream", stream).Time("since", f.Since).Msg("the stream stores messages again")
	}
}

// fail records a publish that was not stored. The caller holds the lock.
func (s *Storage) fail(stream string, refusal Refusal, began time.Time, cause error) {
	now, f := time.Now(), s.failing[stream]
	if f == nil {
		f = &failure{StorageError: StorageError{Stream: stream, Since: now}, pause: trialDelays.First}
		s.failing[stream] = f
		s.troubled()
	}
	before := f.Refusal
	f.Refusal, f.Cause, f.last = refusal, cause, now
	if began.After(f.began) {
		f.began = began
	}
	f.trial = now.Add(f.pause)
	switch {
	case f.counts && before != refusal:
		s.logFailure(f)
	case f.counts:
	case refusal == RefusalNoRoom, refusal == RefusalPermission, refusal != RefusalNoAck &&
		now.Sub(f.Since) >= persistentRefusal:
		f.counts = true
		s.logFailure(f)
	case refusal == RefusalNoAck && !f.asked:
		select {
		case s.suspects <- stream:
			f.asked = true
		default: // the next failure requests it again
		}
	}
}

// logFailure logs that a stream fails. The caller holds the lock.
func (s *Storage) logFailure(f *failure) {
	line := s.log.Error().Err(f.Cause).Str("stream", f.Stream).Str("reason", string(f.Refusal))
	if f.Refusal == RefusalPermission {
		line = line.Str("subject", s.denied[f.Stream].subject)
	}
	line.Msg(f.Error() + "; it is tried again until it stores messages")
}

// examine decides whether a stream that does not acknowledge publishes fails. It fails if it answers another request,
// and does not acknowledge a publish that began after that: an earlier publish may have been sent to a leader that was
// replaced. If the stream does not answer, NATS is unreachable, which [Monitor] reports. An answer of a leader without
// a quorum does not count: the leader is isolated, or was deposed and has not learned it yet.
func (s *Storage) examine(conn *nats.Conn, stream string) {
	reply, err := conn.Request("$JS.API.STREAM.INFO."+stream, nil, suspicionTimeout)
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Cluster streamCluster       `json:"cluster"`
	}
	if err == nil {
		err = json.Unmarshal(reply.Data, &answer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failing[stream]
	if f != nil {
		f.asked = false
	}
	switch {
	case f == nil || f.counts || f.Refusal != RefusalNoAck:
	case err != nil || answer.Error != nil, !answer.Cluster.hasQuorum():
		delete(s.failing, stream)
		s.troubled()
	case f.answered.IsZero(), f.leader != answer.Cluster.Leader:
		f.answered, f.leader = time.Now(), answer.Cluster.Leader
	case f.began.After(f.answered):
		f.counts = true
		s.logFailure(f)
	}
}

// replicaSilent is the time without messages after which a replica does not count for the quorum. Leaders send
// heartbeats every second.
const replicaSilent = 3 * time.Second

// streamCluster is the leader's report on the cluster of a stream.
type streamCluster struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Offline bool          `json:"offline"`
		Active  time.Duration `json:"active"` // since its last message
	} `json:"replicas"`
}

// hasQuorum reports whether the leader has recently received messages of the majority of its group, itself included.
func (c streamCluster) hasQuorum() bool {
	present := 1
	for _, replica := range c.Replicas {
		if !replica.Offline && replica.Active < replicaSilent {
			present++
		}
	}
	return present > (len(c.Replicas)+1)/2
}

// reconnected removes the failures from before the connection was restored: the server may be another one, or have free
// disk space after a restart.
func (s *Storage) reconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected = time.Now()
	for stream, f := range s.failing {
		if f.counts {
			s.log.Warn().Str(
				"stream",
				stream,
			).Time(
				"since",
				f.Since,
			).Msg(
				"the connection to NATS is restored; the stream is used again",
			)
		}
	}
	clear(s.failing)
	s.troubled()
}

// troubled updates trouble. The caller holds the lock.
func (s *Storage) troubled() { s.trouble.Store(len(s.failing)+len(s.declared) > 0) }

// Declare replaces the streams that an embedded server declares to fail. They are not tried until they are declared to
// store again.
func (s *Storage) Declare(failing []*StorageError) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.declared[streams.Events]
	s.declared = make(map[string]*StorageError, len(failing))
	for _, f := range failing {
		s.declared[f.Stream] = f
	}
	if before == nil && s.declared[streams.Events] != nil {
		for _, notify := range s.notify {
			notify()
		}
	}
	if len(failing) == 0 {
		clear(s.failing) // the server has declared that all store
	}
	s.troubled()
}

// WhenDeclared registers a function that is called whenever EVENTS is declared to fail. It must not block.
func (s *Storage) WhenDeclared(notify func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = append(s.notify, notify)
}

// Check returns the [*StorageError] of a stream that is known not to store published messages; nil: there is none.
func (s *Storage) Check(streams ...string) error { return s.check(false, streams...) }

// Admit is Check for an append. It admits the append to a failing stream if a trial is due.
func (s *Storage) Admit(stream string) error {
	err := s.check(true, stream)
	var storage *StorageError
	if errors.As(err, &storage) {
		s.refused.WithLabelValues(string(storage.Refusal)).Inc()
	}
	return err
}

func (s *Storage) check(try bool, streams ...string) error {
	if s == nil || !s.trouble.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, stream := range streams {
		if known := s.declared[stream]; known != nil {
			return known
		}
		f := s.failing[stream]
		if f == nil || !f.counts {
			continue
		}
		if now.After(f.trial.Add(trialTime)) { // the last trial was not used
			f.pause = trialDelays.Next(f.pause)
			f.trial = now.Add(f.pause)
		}
		if now.Before(f.trial) {
			known := f.StorageError
			return &known
		}
		if try {
			f.pause = trialDelays.Next(f.pause)
			f.trial = now.Add(natsclient.AckTimeout + f.pause) // one trial at a time
		}
	}
	return nil
}
