package events

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc/response"
)

const (
	// defaultPage is the size of a page if the request has none.
	defaultPage = 100
	// maxScanned and maxReading bound the messages that are read for a page, and the time.
	maxScanned, maxReading = 5000, 2 * time.Second
	// pageVersion is the version of page tokens, and pageLength their length.
	pageVersion = 1
)

// pageRequest is a request for a page.
type pageRequest interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// scope is what a page token is bound to: the tenant and the request without its page.
func scope(tenant contextkit.TenantID, req pageRequest) (string, error) {
	bare := proto.Clone(req)
	m := bare.ProtoReflect()
	for _, name := range []protoreflect.Name{"page_size", "page_token", "tenant_id"} {
		m.Clear(m.Descriptor().Fields().ByName(name))
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	return tenant.String() + "/" + string(m.Descriptor().Name()) + "/" + string(data), err
}

// resume returns the sequence in the request's page token, 0 if it has none.
func (s *Service) resume(tenant contextkit.TenantID, req pageRequest) (uint64, error) {
	if req.GetPageToken() == "" {
		return 0, nil
	}
	wrong := connect.NewError(connect.CodeInvalidArgument, "page_token: it was not issued for this request")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(req.GetPageToken())
	if err != nil || len(raw) == 0 || raw[0] != pageVersion {
		return 0, wrong
	}
	bound, err := scope(tenant, req)
	if err != nil {
		return 0, err
	}
	content, err := s.sealer.Open(bound, raw[1:])
	if err != nil || len(content) != 16 ||
		int64(binary.BigEndian.Uint64(content)) != s.Journal.Epoch() {
		return 0, wrong
	}
	return binary.BigEndian.Uint64(content[8:]), nil
}

// pageToken returns the token of the page at a sequence, "" for 0.
func (s *Service) pageToken(tenant contextkit.TenantID, req pageRequest, sequence uint64) (string, error) {
	if sequence == 0 {
		return "", nil
	}
	bound, err := scope(tenant, req)
	if err != nil {
		return "", err
	}
	content := binary.BigEndian.AppendUint64(nil, uint64(s.Journal.Epoch()))
	content = binary.BigEndian.AppendUint64(content, sequence)
	return base64.RawURLEncoding.EncodeToString(s.sealer.Seal([]byte{pageVersion}, bound, content)), nil
}

// selection is what a page has of the messages that are read for it.
type selection[T proto.Message] struct {
	// past reports whether no further message is needed; nil: all are.
	past func(journal.Message) bool
	// item returns what the page has of a message, and false for nothing.
	item func(journal.Message) (T, bool)
}

// page is a part of a list.
type page[T proto.Message] struct {
	items []T
	// next is where the next page begins, 0: there is none. last is the sequence of the last message that was read.
	next, last uint64
}

// collect reads a page of a range, from its end if back is set.
func collect[T proto.Message](
	ctx context.Context,
	s *Service,
	tenant contextkit.TenantID,
	r journal.Range,
	back bool,
	size int32,
	selected selection[T],
) (page[T], error) {
	if size == 0 {
		size = defaultPage
	}
	var (
		out    page[T]
		room   = response.Page{Bytes: s.Answers.PageBytes()}
		began  = time.Now()
		over   bool
		failed error
	)
	scan := s.Journal.Scan
	if back {
		scan = s.Journal.ScanBack
	}
	next, err := scan(ctx, r, maxScanned, func(m journal.Message) bool {
		if over = selected.past != nil && selected.past(m); over {
			return false
		}
		if out.last > 0 && time.Since(began) > maxReading {
			return false
		}
		item, ok := selected.item(m)
		if ok {
			bytes := proto.Size(item)
			if len(out.items) == int(size) || !room.Add(bytes) {
				return false
			}
			if failed = response.TooLarge("the event", bytes); failed != nil {
				return false
			}
			out.items = append(out.items, item)
		}
		out.last = m.Sequence
		return true
	})
	if err = firstError(failed, asConnectError(err)); err != nil {
		return page[T]{}, err
	}
	if !over {
		out.next = next
	}
	return out, s.Answers.Hold(ctx, tenant, room.Used())
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// typed reports whether a message is an event of one of the types, or no event; no types: any.
func typed(types []string, m journal.Message) bool {
	if len(types) == 0 || slices.Contains(types, journal.TypeOf(m)) {
		return true
	}
	_, err := journal.ReadEvent(m)
	return err != nil
}
