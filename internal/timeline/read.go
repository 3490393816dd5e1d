package timeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/fnv"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// An account's spans are on slots subjects, by their correlation id, each of which
// holds the newest streams.TimelineMessages: a correlation's spans are read with those of its slot
// alone, and what an account stores is bounded by messages per subject.
const (
	slots = 64

	// maxSpanBytes bounds the records that make up a timeline.
	maxSpanBytes = 1 << 20
)

// subject returns the subject of an account's spans with a correlation id.
func subject(account streams.Account, correlation string) string {
	slot := fnv.New32a()
	_, _ = slot.Write([]byte(correlation)) // it never fails
	return slotSubject(account, strconv.Itoa(int(slot.Sum32()%slots)))
}

// slotSubject returns the subject of a slot, "*" for any.
func slotSubject(account streams.Account, slot string) string {
	return "timeline." + string(account) + "." + slot
}

// earlierSubject returns the subject on which earlier versions published spans, one per call.
// Its arguments are subject tokens; "*" matches any.
func earlierSubject(account streams.Account, correlation, trace, request string) string {
	return "timeline." + string(account) + "." + correlation + "." + trace + "." + request
}

var plainToken = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// earlierToken returns an id as a token of such a subject, which not every character may be
// part of.
func earlierToken(id string) string {
	if plainToken.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "=" + hex.EncodeToString(sum[:16])
}

// Read returns the tenant's spans of one correlation id, ordered by their start. id is that
// correlation id, or the trace or request id of one of the spans. complete is false when there
// are more spans than are read. Calls that name the tenant without a valid credential are
// included. The zero tenant is the platform.
func Read(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	id string,
) (spans []Span, complete bool, err error) {
	read := reader{js, tenant, streams.AccountOf(tenant)}
	spans, complete, err = read.correlation(ctx, id)
	if err != nil || len(spans) > 0 {
		return spans, complete, err
	}
	found, err := read.find(ctx, id)
	if err != nil || found == nil {
		return nil, true, err
	}
	return read.correlation(ctx, found.CorrelationID)
}

// reader reads a tenant's spans.
type reader struct {
	js      jetstream.JetStream
	tenant  contextkit.TenantID
	account streams.Account
}

var (
	errEnough = errors.New("enough")
	errMany   = errors.New("many")
)

// correlation returns the spans with a correlation id.
func (r reader) correlation(ctx context.Context, id string) (spans []Span, complete bool, err error) {
	total := 0
	for _, subject := range []string{
		subject(r.account, id), earlierSubject(r.account, earlierToken(id), "*", "*"),
		subject(streams.AccountUnauthenticated, id),
	} {
		err = r.each(ctx, subject, id, func(h Span, size int) error {
			if h.CorrelationID != id {
				return nil
			}
			if total += size; len(spans) == maxSpans || total > maxSpanBytes {
				return errMany
			}
			spans = append(spans, h)
			return nil
		})
		if err != nil {
			break
		}
	}
	if complete = err == nil; errors.Is(err, errMany) {
		err = nil
	}
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Started.Compare(b.Started) })
	return spans, complete, err
}

// find returns a span with a trace or request id, nil if there is none.
func (r reader) find(ctx context.Context, id string) (found *Span, err error) {
	token := earlierToken(id)
	for _, subject := range []string{
		slotSubject(r.account, "*"), slotSubject(streams.AccountUnauthenticated, "*"),
		earlierSubject(r.account, "*", token, "*"), earlierSubject(r.account, "*", "*", token),
	} {
		err = r.each(ctx, subject, id, func(h Span, _ int) error {
			if h.TraceID != id && h.RequestID != id {
				return nil
			}
			found = &h
			return errEnough
		})
		if err != nil {
			break
		}
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// each calls do for the tenant's spans under a subject that contain an id, until do fails.
// Calls without a valid credential have one account, whichever tenant they name.
func (r reader) each(ctx context.Context, subject, id string, do func(h Span, size int) error) error {
	mention, shared := []byte(id), strings.HasPrefix(subject, slotSubject(streams.AccountUnauthenticated, ""))
	return natsclient.ReadBatches(ctx, r.js, streams.Timeline, subject, 1, 0, func(msg *jetstream.RawStreamMsg) error {
		var h Span
		if !bytes.Contains(msg.Data, mention) ||
			shared && msg.Header.Get(contextkit.NATSTenantID) != r.tenant.String() ||
			json.Unmarshal(msg.Data, &h) != nil {
			return nil //nolint:nilerr // a record of another format is skipped, as are those of other calls
		}
		return do(h, len(msg.Data))
	})
}
