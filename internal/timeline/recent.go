package timeline

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// maxRecentSpans bounds the spans that are read for recent timelines.
const maxRecentSpans = 5000

// Summary is a timeline, as far as its spans were read.
type Summary struct {
	CorrelationID string
	// Started is when its earliest span started, and Ended when the latest ended.
	Started, Ended time.Time
	// First is the earliest span, and Failed the latest that has failed, nil for none.
	First  Span
	Failed *Span
	// command is the earliest command, nil for none.
	command *Span
	// Spans is the number of spans that were read.
	Spans int
}

// Root returns the span that tells best what the timeline is of: the first command of its earliest call, which the
// call alone would not name; without one, the earliest span.
func (s *Summary) Root() *Span {
	if s.command != nil && s.command.RequestID == s.First.RequestID {
		return s.command
	}
	return &s.First
}

// OK reports whether the step that a span records has succeeded.
func (s *Span) OK() bool {
	return s.Code == "" || s.Code == "ok" || s.Code == "done" || s.Code == "skipped"
}

func (s *Span) ended() time.Time {
	return s.Started.Add(time.Duration(s.Milliseconds * float64(time.Millisecond)))
}

// Recent returns summaries of the tenant's timelines from its newest spans, the one with the newest span first, and
// whether all of its spans were read.
func Recent(
	ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID,
) (all []*Summary, complete bool, err error) {
	known := map[string]*Summary{}
	next, err := natsclient.ReadNewest(ctx, js, streams.Timeline,
		[]string{slotSubject(streams.AccountOf(tenant), "*")}, 0, maxRecentSpans,
		func(msg *jetstream.RawStreamMsg) bool {
			var span Span
			if json.Unmarshal(msg.Data, &span) != nil || span.CorrelationID == "" {
				return true // a record of another format
			}
			span.Detail = "" // the largest part, which a summary does not have
			of := known[span.CorrelationID]
			if of == nil {
				of = &Summary{CorrelationID: span.CorrelationID, Started: span.Started, First: span}
				known[span.CorrelationID] = of
				all = append(all, of)
			}
			of.add(&span)
			return true
		})
	return all, next == 0, err
}

// add adds a span.
func (s *Summary) add(span *Span) {
	s.Spans++
	if span.Started.Before(s.Started) {
		s.Started, s.First = span.Started, *span
	}
	if span.Kind == KindCommand && (s.command == nil || span.Started.Before(s.command.Started)) {
		s.command = span
	}
	if ended := span.ended(); ended.After(s.Ended) {
		s.Ended = ended
	}
	if !span.OK() && (s.Failed == nil || span.Started.After(s.Failed.Started)) {
		s.Failed = span
	}
}
