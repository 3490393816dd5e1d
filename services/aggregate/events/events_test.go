package events_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/services/aggregate/events"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// fixture is a service over a journal.
type fixture struct {
	gatewayv1connect.EventServiceClient

	js      jetstream.JetStream
	journal *journal.Journal
	tenants *rpc.Tenants
}

// start starts a service, whose pages have a number of bytes; 0: the default.
func start(t *testing.T, pageBytes int) *fixture {
	t.Helper()
	eventLog, js := natstest.OpenJournal(t)
	tenants, err := rpc.ParseTenants([]string{"acme", "globex"})
	if err != nil {
		t.Fatal(err)
	}
	service := events.New(events.Config{
		JetStream: js,
		Journal:   eventLog,
		Tenants:   tenants,
		Positions: position.NewCodec([]byte("secret"), eventLog.Epoch, nil),
		Secret:    []byte("secret"),
		Answers:   response.NewLimiter(response.Config{PageBytes: pageBytes}),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	server := connect.NewServer(contextkit.ServerInterceptor, rpc.Validate)
	service.Register(server)
	client := gatewayv1connect.NewEventServiceClient(contextkit.NewClient(connectinprocess.New(server)))
	return &fixture{
		EventServiceClient: client,
		js:                 js,
		journal:            eventLog,
		tenants:            tenants,
	}
}

func as(t *testing.T, tenant string) context.Context {
	t.Helper()
	return contextkit.TenantContext(t.Context(), natstest.Tenant(t, tenant))
}

// append appends n events to a tenant's wallet, from a version on.
func (f *fixture) append(t *testing.T, tenant, id string, first, n int) {
	t.Helper()
	last := uint64(0)
	if first > 1 {
		all := natstest.Load(t, f.journal, natstest.Tenant(t, tenant), id)
		last = all[len(all)-1].Sequence
	}
	if err := f.journal.Append(
		as(t, tenant), natstest.Tenant(t, tenant), last, natstest.Events(id, first, n, ""),
	); err != nil {
		t.Fatal(err)
	}
}

// versions returns the versions of events, "!" for messages that are no events.
func versions(all []*aggregatev1.JournalEvent) string {
	var out []string
	for _, e := range all {
		text := fmt.Sprint(e.GetVersion())
		if e.GetUnreadable() != nil {
			text = "!"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// listed returns the versions on all pages of an aggregate's list.
func (f *fixture) listed(t *testing.T, req *aggregatev1.ListEventsRequest) string {
	t.Helper()
	var pages []string
	for {
		res, err := f.ListEvents(as(t, "acme"), req)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, versions(res.GetEvents()))
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			return strings.Join(pages, " | ")
		}
	}
}

func TestListEvents_ReturnsHistoryInBothDirections(t *testing.T) {
	f := start(t, 0)
	f.append(t, "acme", "ada", 1, 2)
	f.append(t, "globex", "ada", 1, 3)
	f.append(t, "acme", "bob", 1, 4)
	natstest.PublishStrange(t, f.js, natstest.Strange{Fault: journal.FaultData}, "acme", "wallet", "ada", "deposited",
		3, `[]`)
	keyed := natstest.Events("ada", 4, 3, "key")
	keyed[0].Principal = "corp:Zoë"
	if err := f.journal.Append(as(t, "acme"), natstest.Tenant(t, "acme"), 10, keyed); err != nil {
		t.Fatal(err)
	}
	ada := func(change func(*aggregatev1.ListEventsRequest)) *aggregatev1.ListEventsRequest {
		req := &aggregatev1.ListEventsRequest{AggregateType: "wallet", AggregateId: "ada", PageSize: 4}
		change(req)
		return req
	}
	for name, c := range map[string]struct {
		change func(*aggregatev1.ListEventsRequest)
		want   string
	}{
		"all":              {func(*aggregatev1.ListEventsRequest) {}, "1 2 ! 4 | 5 6"},
		"newest first":     {func(r *aggregatev1.ListEventsRequest) { r.NewestFirst = true }, "6 5 4 ! | 2 1"},
		"from a version":   {func(r *aggregatev1.ListEventsRequest) { r.FromVersion = 4 }, "4 5 6"},
		"to a version":     {func(r *aggregatev1.ListEventsRequest) { r.ToVersion = 2 }, "1 2"},
		"between versions": {func(r *aggregatev1.ListEventsRequest) { r.FromVersion, r.ToVersion = 2, 5 }, "2 ! 4 5"},
		"back to a version": {func(r *aggregatev1.ListEventsRequest) {
			r.NewestFirst, r.FromVersion, r.ToVersion = true, 2, 4
		}, "4 ! 2"},
		"of another type": {func(r *aggregatev1.ListEventsRequest) { r.EventTypes = []string{"opened"} }, "!"},
		"of the future": {func(r *aggregatev1.ListEventsRequest) {
			r.Since = timestamppb.New(time.Now().Add(time.Hour))
		}, ""},
		"of the past": {func(r *aggregatev1.ListEventsRequest) {
			r.Until, r.NewestFirst = timestamppb.New(time.Now().Add(-time.Hour)), true
		}, ""},
		"none": {func(r *aggregatev1.ListEventsRequest) { r.AggregateId = "absent" }, ""},
	} {
		if got := f.listed(t, ada(c.change)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	res, err := f.ListEvents(as(t, "acme"), ada(func(*aggregatev1.ListEventsRequest) {}))
	if err != nil {
		t.Fatal(err)
	}
	e := res.GetEvents()[3]
	if e.GetData().AsMap()["amount"] != 4.0 || e.GetIdempotencyKey() != "key" || e.GetCorrelationId() == "" ||
		e.GetRequestId() == "" || e.GetPrincipal() != "corp:Zoë" ||
		e.GetTraceId() == "" || e.GetDataVersion() != 1 || e.GetHeaders()["ce-type"] != "deposited" {
		t.Errorf("an event is returned as %v", e)
	}
	for name := range e.GetHeaders() {
		if strings.HasPrefix(name, "Nats-") {
			t.Errorf("JetStream's header %s is returned", name)
		}
	}
	if bad := res.GetEvents()[2]; bad.GetUnreadable().GetFault() != "data" || bad.GetData() != nil ||
		bad.GetRawData() != nil {
		t.Errorf("a message that is no event is returned as %v", bad)
	}
	// A token belongs to its request and its tenant.
	token := res.GetNextPageToken()
	for name, c := range map[string]struct {
		tenant string
		change func(*aggregatev1.ListEventsRequest)
	}{
		"another tenant":  {"globex", func(*aggregatev1.ListEventsRequest) {}},
		"another request": {"acme", func(r *aggregatev1.ListEventsRequest) { r.NewestFirst = true }},
		"a forged token":  {"acme", func(r *aggregatev1.ListEventsRequest) { r.PageToken = "AQ" }},
	} {
		_, err := f.ListEvents(as(t, c.tenant), ada(func(r *aggregatev1.ListEventsRequest) {
			r.PageToken = token
			c.change(r)
		}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadEvents_ReadsTenantFromPosition(t *testing.T) {
	f := start(t, 0)
	f.append(t, "acme", "ada", 1, 3)
	f.append(t, "globex", "eve", 1, 3)
	f.append(t, "acme", "bob", 1, 3)
	read := func(req *aggregatev1.ReadEventsRequest) *aggregatev1.ReadEventsResponse {
		t.Helper()
		res, err := f.ReadEvents(as(t, "acme"), req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	ids := func(res *aggregatev1.ReadEventsResponse) string {
		var out []string
		for _, e := range res.GetEvents() {
			out = append(out, fmt.Sprint(e.GetAggregateId(), e.GetVersion()))
		}
		return strings.Join(out, " ")
	}
	first := read(&aggregatev1.ReadEventsRequest{PageSize: 4})
	if got := ids(first); got != "ada1 ada2 ada3 bob1" || first.GetNextPageToken() == "" {
		t.Errorf("the first page is %q, its token %q", got, first.GetNextPageToken())
	}
	for _, req := range []*aggregatev1.ReadEventsRequest{
		{PageSize: 4, PageToken: first.GetNextPageToken()}, {After: first.GetPosition()},
		{After: first.GetEvents()[3].GetPosition()},
	} {
		if res := read(req); ids(res) != "bob2 bob3" || res.GetNextPageToken() != "" {
			t.Errorf("%v: %q, then %q", req, ids(res), res.GetNextPageToken())
		}
	}
	end := read(&aggregatev1.ReadEventsRequest{After: first.GetPosition()}).GetPosition()
	if res := read(&aggregatev1.ReadEventsRequest{After: end}); ids(res) != "" || res.GetPosition() != end {
		t.Errorf("after the end: %v", res)
	}
	for want, req := range map[string]*aggregatev1.ReadEventsRequest{
		"bob3 bob2 bob1 ada3": {NewestFirst: true, PageSize: 4},
		"ada2 ada1":           {NewestFirst: true, Before: first.GetEvents()[2].GetPosition()},
		"ada3 bob1 bob2 bob3": {After: first.GetEvents()[1].GetPosition()},
		"ada3":                {After: first.GetEvents()[1].GetPosition(), Before: first.GetEvents()[3].GetPosition()},
		"":                    {AggregateType: "order"},
	} {
		if got := ids(read(req)); got != want {
			t.Errorf("%v: %q, want %q", req, got, want)
		}
	}
	if _, err := f.ReadEvents(
		as(t, "globex"), &aggregatev1.ReadEventsRequest{After: end},
	); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("another tenant's position: %v", err)
	}
}

func TestReadEvents_PageIsBoundedInBytes(t *testing.T) {
	const page = 16 << 10
	f := start(t, page)
	large := natstest.Events("ada", 1, 6, "")
	for n := range large {
		large[n].Data = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 3<<10))
	}
	large[3].Data = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 64<<10))
	if err := f.journal.Append(as(t, "acme"), natstest.Tenant(t, "acme"), 0, large); err != nil {
		t.Fatal(err)
	}
	for _, back := range []bool{false, true} {
		var sizes []int
		req := &aggregatev1.ReadEventsRequest{NewestFirst: back}
		for {
			res, err := f.ReadEvents(as(t, "acme"), req)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(res.GetEvents()))
			if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if want := []int{2, 1, 1, 2}; !back && !slices.Equal(sizes, want) || slices.Max(sizes) > 2 ||
			back && len(sizes) != 3 && len(sizes) != 4 {
			t.Errorf("newest first %v: pages of %v events", back, sizes)
		}
	}
}

func TestReadEvents_DataIsReturnedAsStored(t *testing.T) {
	f := start(t, 0)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	many := `{"a":[` + strings.TrimSuffix(strings.Repeat("0,", 200_000), ",") + `]}`
	exact := []string{
		`{}`, `{"a":[1,"x",true,null,{"b":-0.5}]}`, `{"n":9007199254740992}`, `{"e":1e3}`, `{"t":"\ud83d\ude00"}`,
		`{"t":"` + "\uFFFD" + `"}`,
	}
	raw := []string{
		`{"n":9007199254740993}`, `{"n":1e999}`, `{"a":1,"a":2}`, `{"t":"\ud800"}`, "{\"t\":\"\xff\"}", deep, many,
	}
	for n, data := range slices.Concat(exact, raw) {
		natstest.PublishStrange(t, f.js, natstest.Strange{}, "acme", "wallet", "ada", "opened", int64(n+1), data)
	}
	res, err := f.ReadEvents(as(t, "acme"), &aggregatev1.ReadEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for n, e := range res.GetEvents() {
		data := slices.Concat(exact, raw)[n]
		if isRaw := e.GetRawData() != nil; isRaw != (n >= len(exact)) || isRaw && string(e.GetRawData()) != data ||
			isRaw == (e.GetData() != nil) {
			t.Errorf("%.60s: data %v, raw data %.60q", data, e.GetData(), e.GetRawData())
		}
	}
	if len(res.GetEvents()) != len(exact)+len(raw) {
		t.Errorf("%d events are returned", len(res.GetEvents()))
	}
}

func TestListAggregates_FindsThemByPrefix(t *testing.T) {
	f := start(t, 0)
	for _, id := range []string{"ada-1", "bob", "ada-2", "ada", "ada-3"} {
		f.append(t, "acme", id, 1, 2)
	}
	f.append(t, "globex", "ada-9", 1, 1)
	list := func(prefix string, back bool, size int32) string {
		var out []string
		req := &aggregatev1.ListAggregatesRequest{
			AggregateType: "wallet",
			IdPrefix:      prefix,
			PageSize:      size,
			NewestFirst:   back,
		}
		for {
			res, err := f.ListAggregates(as(t, "acme"), req)
			if err != nil {
				t.Fatal(err)
			}
			if len(res.GetAggregates()) > int(size) {
				t.Errorf("%q: a page of %d has %d aggregates", prefix, size, len(res.GetAggregates()))
			}
			for _, a := range res.GetAggregates() {
				out = append(out, a.GetAggregateId())
			}
			if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
				return strings.Join(out, " ")
			}
		}
	}
	for _, c := range []struct {
		prefix string
		back   bool
		want   string
	}{
		{"", false, "ada-1 bob ada-2 ada ada-3"},
		{"ada", false, "ada ada-1 ada-2 ada-3"},
		{"ada", true, "ada ada-3 ada-2 ada-1"},
		{"b", false, "bob"},
		{"eve", false, ""},
	} {
		for _, size := range []int32{1, 2} {
			if got := list(c.prefix, c.back, size); got != c.want {
				t.Errorf("%q, newest first %v: %q, want %q", c.prefix, c.back, got, c.want)
			}
		}
	}
}
