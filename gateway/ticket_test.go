package gateway_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	rest "github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/token"
)

// hallPath is the path of a stream of events of a ticker.
const hallPath = "/v1/ticks/rooms/hall"

// ticketSecret is the secret that all gateways of a test share.
var ticketSecret = []byte("0123456789abcdef0123456789abcdef")

// createTicket creates a ticket like a page, and returns the path with it, or the error.
func (e *ticketEdge) createTicket(t *testing.T, token, path string, header ...string) (string, string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"path": path})
	if err != nil {
		t.Fatal(err)
	}
	_, text := e.http(t, http.MethodPost, "/gateway.v1.SessionService/CreateTicket", string(body),
		append([]string{"Authorization", token, "Content-Type", "application/json"}, header...)...)
	var res struct{ Path, Code, Message string }
	if err := json.Unmarshal([]byte(text), &res); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return res.Path, res.Code + " " + res.Message
}

// eventSource reads a stream of events like EventSource in a browser.
type eventSource struct {
	status int
	body   string // of an answer that is not a stream
	lines  *bufio.Reader
	lastID string
	asked  string // by the node, of a stream that began opened
	close  func()
}

// openEvents opens a stream, with the id of the last event if there is one.
func (e *ticketEdge) openEvents(t *testing.T, path, lastID string, header ...string) *eventSource {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := e.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	s := &eventSource{
		status: res.StatusCode,
		lines:  bufio.NewReader(res.Body),
		lastID: lastID,
		close:  func() { res.Body.Close() },
	}
	if res.StatusCode != http.StatusOK {
		text, _ := s.lines.ReadString('\n')
		s.body = text
	}
	return s
}

// next returns the data of the next event, and stores the last event id by the HTML standard.
func (s *eventSource) next() (data string, err error) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return data, err
		}
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			s.lastID = id
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			data = text
		}
		if line == "" && data != "" {
			return data, nil
		}
	}
}

// ticketEdge is a gateway with tickets, and the node of its streams.
type ticketEdge struct {
	*edge
	ticks *ticker
}

func startTickets(t *testing.T, change func(*gateway.Config)) *ticketEdge {
	t.Helper()
	ticks := newTicker(t)
	return &ticketEdge{startWith(t, func(c *gateway.Config) {
		c.TicketSecret = ticketSecret
		if change != nil {
			change(c)
		}
	}, ticks.register, ticks.set(t)), ticks}
}

// send makes the node send a number, which the stream must receive.
func (e *ticketEdge) send(t *testing.T, s *eventSource, n int) {
	t.Helper()
	go func() { e.ticks.next <- n }()
	if data, err := s.next(); err != nil || data != fmt.Sprintf(`{"position":"%d"}`, n) {
		t.Fatalf("event %q, %v", data, err)
	}
}

// began opens a stream whose first event is a number.
func (e *ticketEdge) began(t *testing.T, path, lastID string, n int) *eventSource {
	t.Helper()
	go func() { e.ticks.next <- n }()
	s := e.openEvents(t, path, lastID)
	if s.status != http.StatusOK {
		<-e.ticks.next
		t.Fatalf("%d %s", s.status, s.body)
	}
	s.asked = <-e.ticks.ask
	if data, err := s.next(); err != nil || data != fmt.Sprintf(`{"position":"%d"}`, n) {
		t.Fatalf("event %q, %v", data, err)
	}
	return s
}

// The ticket is accepted by every gateway of the platform, without a header, which EventSource
// cannot send.
func TestTicket_OpensStreamAndReconnections(t *testing.T) {
	e := startTickets(t, nil)
	for _, path := range []string{hallPath, hallPath + "?after=40"} {
		opens, failed := e.createTicket(t, e.token(t, "acme", "tick.read"), path)
		if opens == "" {
			t.Fatal(failed)
		}
		s := e.began(t, opens, "", 41)
		want := "acme rooms/hall after "
		if strings.Contains(path, "after") {
			want += "40"
		}
		if s.asked != want {
			t.Errorf("the node received %q, want %q", s.asked, want)
		}
		if !strings.HasPrefix(s.lastID, "41~") {
			t.Errorf("event id %q", s.lastID)
		}
		e.send(t, s, 42)
		lastID := s.lastID
		s.close()
		<-e.ticks.done
		if strings.Contains(path, "after") {
			continue // the parameter and the header name the field
		}
		again := e.began(t, opens, lastID, 43)
		if again.asked != "acme rooms/hall after 42" {
			t.Errorf("the node received %q", again.asked)
		}
		again.close()
		<-e.ticks.done
	}
}

// An interruption before the first event is a reconnection too.
func TestTicket_FirstLineIsID(t *testing.T) {
	e := startTickets(t, func(c *gateway.Config) { c.KeepAlive = time.Millisecond })
	opens, _ := e.createTicket(t, e.token(t, "acme", "tick.read"), hallPath)
	s := e.openEvents(t, opens, "")
	<-e.ticks.ask
	line, err := s.lines.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "id: ~") {
		t.Fatalf("first line %q, %v", line, err)
	}
	s.close()
	<-e.ticks.done
	again := e.openEvents(t, opens, strings.TrimSpace(strings.TrimPrefix(line, "id: ")))
	if got := <-e.ticks.ask; again.status != http.StatusOK || got != "acme rooms/hall after " {
		t.Errorf("%d %s; the node received %q", again.status, again.body, got)
	}
	again.close()
	<-e.ticks.done
}

// resealed changes the content of a ticket, which only a gateway can do.
func resealed(t *testing.T, opens, target string, change func(map[string]any)) string {
	t.Helper()
	u, err := url.Parse(opens)
	if err != nil {
		t.Fatal(err)
	}
	sealer := token.NewSealer(ticketSecret, "ticket")
	sealed, err := base64.RawURLEncoding.DecodeString(u.Query().Get(rest.TicketParameter))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := sealer.Open(target, sealed)
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := json.Unmarshal(plain, &content); err != nil {
		t.Fatal(err)
	}
	change(content)
	if plain, err = json.Marshal(content); err != nil {
		t.Fatal(err)
	}
	return target + "?" + rest.TicketParameter + "=" +
		base64.RawURLEncoding.EncodeToString(sealer.Seal(nil, target, plain))
}

func TestTicket_IsBoundToItsStream(t *testing.T) {
	e := startTickets(t, func(c *gateway.Config) { c.Query.Ignored = []string{"utm_*"} })
	bearer := e.token(t, "acme", "tick.read", "query.read")
	opens, failed := e.createTicket(t, bearer, hallPath+"?utm_a=1&utm_b=2")
	if opens == "" {
		t.Fatal(failed)
	}
	other, _ := e.createTicket(t, bearer, hallPath+"?utm_a=1&utm_b=2")
	plain, _ := e.createTicket(t, bearer, hallPath)
	_, query, _ := strings.Cut(opens, "?")
	_, text, _ := strings.Cut(query, rest.TicketParameter)
	parameter := rest.TicketParameter + text
	s := e.began(t, opens, "", 1)
	s.close()
	<-e.ticks.done
	o := e.began(t, other, "", 1)
	o.close()
	<-e.ticks.done
	at, letter := len(opens)-20, "A" // not the last one, of which only some bits count
	if opens[at] == 'A' {
		letter = "B"
	}
	altered := opens[:at] + letter + opens[at+1:]
	late := resealed(t, plain, hallPath,
		func(c map[string]any) { c["open"] = time.Now().Add(-time.Second).UnixMilli() })
	for name, tc := range map[string]struct {
		path, lastID string
		header       []string
		status       int
		message      string
	}{
		"other path":                  {"/v1/ticks/rooms/attic?" + query, "", nil, 401, "for another path"},
		"other binding of the method": {"/v1/positions/rooms/hall?" + query, "", nil, 401, "for another path"},
		"missing query":               {hallPath + "?" + parameter, "", nil, 401, "for another path"},
		"other query value": {
			hallPath + "?utm_a=1&utm_b=3&" + parameter, "", nil, 401, "for another path",
		},
		"additional parameter": {
			hallPath + "?utm_a=1&utm_b=2&utm_c=3&" + parameter, "", nil, 401, "for another path",
		},
		"other parameter order": {
			hallPath + "?utm_b=2&utm_a=1&" + parameter, "", nil, 401, "for another path",
		},
		"tenant in the query": {
			hallPath + "?utm_a=1&utm_b=2&tenant_id=globex&" + parameter, "", nil, 401, "for another path",
		},
		"foreign tenant in a header":     {opens, "", []string{contextkit.HeaderTenantID, "globex"}, 401, "invalid"},
		"altered ticket":                 {altered, "", nil, 401, "invalid"},
		"truncated ticket":               {opens[:len(opens)-8], "", nil, 401, "invalid"},
		"empty ticket":                   {hallPath + "?" + rest.TicketParameter + "=", "", nil, 401, "invalid"},
		"ticket over the maximum length": {opens + strings.Repeat("A", 4000), "", nil, 401, "invalid"},
		"ticket of another type":         {opens + "%0a", "", nil, 401, "invalid"},
		"two tickets":                    {opens + "&" + parameter, "", nil, 400, "given more than once"},
		"escaped parameter name": {
			hallPath + "?utm_a=1&utm_b=2&headgate%5Fticket=x&" + parameter, "", nil, 400, "given more than once",
		},
		"ticket and credential":        {opens, "", []string{"Authorization", bearer}, 401, "send one of them"},
		"event id without a signature": {opens, "42", nil, 401, "invalid"},
		"forged event signature":       {opens, "42~AAAAAAAAAAAAAAAAAAAAAA", nil, 401, "invalid"},
		"signature of another event":   {opens, "2" + s.lastID, nil, 401, "invalid"},
		"signature of another ticket":  {opens, o.lastID, nil, 401, "invalid"},
		"missing signature":            {opens, "~", nil, 401, "invalid"},
		"expired ticket":               {late, "", nil, 401, "within 30 seconds"},
		"other ticket version": {
			resealed(t, plain, hallPath, func(c map[string]any) { c["v"] = 2 }), "", nil, 401, "invalid",
		},
		"other method": {
			resealed(t, plain, hallPath, func(c map[string]any) { c["proc"] = "/x/Y" }), "", nil, 401, "invalid",
		},
		"expired credential": {
			resealed(t, plain, hallPath, func(c map[string]any) { c["for"].(map[string]any)["until"] = 1 }), "", nil,
			401, "expired",
		},
		"revoked signing key": {
			resealed(t, plain, hallPath, func(c map[string]any) { c["for"].(map[string]any)["print"] = "x" }), "", nil,
			401, "revoked",
		},
		"revoked API key": {
			resealed(t, plain, hallPath, func(c map[string]any) { c["for"].(map[string]any)["api"] = true }), "", nil,
			401, "revoked",
		},
		"removed rights": {
			resealed(t, plain, hallPath, func(c map[string]any) { delete(c["for"].(map[string]any), "rights") }), "",
			nil, 403, "tick.read",
		},
	} {
		got := e.openEvents(t, tc.path, tc.lastID, tc.header...)
		if got.status != tc.status || !strings.Contains(got.body, tc.message) {
			t.Errorf("%s: %d %s, want %d with %q", name, got.status, got.body, tc.status, tc.message)
		}
		if strings.Contains(got.body, parameter[len(rest.TicketParameter)+1:][:40]) {
			t.Errorf("%s: response contains the ticket: %s", name, got.body)
		}
	}
	for method, path := range map[string]string{http.MethodPost: "/v1/query/wallets", http.MethodGet: "/v1/nothing"} {
		if status, text := e.http(t, method, path+"?"+parameter, "{}"); status != 400 && status != 404 ||
			strings.Contains(text, parameter[16:56]) {
			t.Errorf("%s %s: %d %s", method, path, status, text)
		}
	}
	// The stream is the same with any escaping.
	same := e.began(t, "/v1/ticks/room%73/hall?utm%5Fa=%31&utm_b=2&"+parameter, s.lastID, 2)
	same.close()
	<-e.ticks.done
}

// A client that reconnects before the gateway has noticed the disconnection does not have two
// streams.
func TestTicket_HasOneStream(t *testing.T) {
	e := startTickets(t, func(c *gateway.Config) { c.KeepAlive = time.Millisecond }) // answers begin before an event
	opens, _ := e.createTicket(t, e.token(t, "acme", "tick.read"), hallPath)
	first := e.began(t, opens, "", 1)
	second := e.openEvents(t, opens, first.lastID)
	if got := <-e.ticks.ask; second.status != http.StatusOK || got != "acme rooms/hall after 1" {
		t.Fatalf("%d %s; the node received %q", second.status, second.body, got)
	}
	if data, err := first.next(); err != nil || !strings.Contains(data, `"code":"aborted"`) {
		t.Fatalf("first stream: %q, %v", data, err)
	}
	<-e.ticks.done
	e.send(t, second, 2)
	second.close()
	<-e.ticks.done
}

func TestCreateTicket_NeedsRightToStream(t *testing.T) {
	e := startTickets(t, nil)
	bearer := e.token(t, "acme", "tick.read", "query.read")
	for name, tc := range map[string]struct {
		token, path, want string
		header            []string
	}{
		"no credential": {"", hallPath, "unauthenticated no credential", nil},
		"no right":      {e.token(t, "acme", "query.read"), hallPath, "permission_denied", nil},
		"another tenant": {
			bearer, hallPath, "permission_denied", []string{contextkit.HeaderTenantID, "globex"},
		},
		"no tenant": {
			e.token(t, "acme,globex", "tick.read"), hallPath, "invalid_argument tenant_id: missing", nil,
		},
		"unary method": {
			bearer, "/v1/query/wallets", "invalid_argument path: GET does not open a stream", nil,
		},
		"unknown method": {bearer, "/v1/nothing", "invalid_argument path: GET does not open a stream", nil},
		"procedure path": {
			bearer, "/test.Ticker/Watch", "invalid_argument path: GET does not open a stream", nil,
		},
		"other origin": {
			bearer, "https://evil.example.com" + hallPath, "invalid_argument path: not a path", nil,
		},
		"other host":    {bearer, "//evil.example.com" + hallPath, "invalid_argument path: not a path", nil},
		"backslash":     {bearer, "/\\evil.example.com", "invalid_argument path: not a path", nil},
		"relative path": {bearer, "v1/ticks/rooms/hall", "invalid_argument path: not a path", nil},
		"fragment":      {bearer, hallPath + "#x", "invalid_argument path: not a path", nil},
		"path with a ticket": {
			bearer, hallPath + "?headgate_ticket=x", "invalid_argument path: has a ticket already", nil,
		},
		"line break":                   {bearer, hallPath + "\r\nX: y", "invalid_argument path: not a path", nil},
		"malformed escapes":            {bearer, hallPath + "%zz", "invalid_argument path: not a path", nil},
		"path over the maximum length": {bearer, hallPath + strings.Repeat("a", 4096), "invalid_argument", nil},
		"empty":                        {bearer, "", "invalid_argument", nil},
		"dot segments": {
			bearer, "/v1/x/../ticks/rooms/hall", "invalid_argument path: GET does not open a stream", nil,
		},
		"too many narrowed rights": {e.token(t, "acme", manyRights()...), hallPath, "failed_precondition", nil},
	} {
		if opens, got := e.createTicket(t, tc.token, tc.path, tc.header...); opens != "" ||
			!strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %q, %s, want %s", name, opens, got, tc.want)
		}
	}
	if opens, failed := e.createTicket(
		t, e.token(t, "acme,globex", "tick.read"), hallPath, contextkit.HeaderTenantID, "globex",
	); opens == "" {
		t.Error(failed)
	} else {
		s := e.began(t, opens, "", 1)
		if s.asked != "globex rooms/hall after " {
			t.Errorf("the node received %q", s.asked)
		}
		s.close()
		<-e.ticks.done
	}
	without := startWith(t, nil, e.ticks.register, e.ticks.set(t))
	if opens, got := (&ticketEdge{without, e.ticks}).createTicket(
		t, without.token(t, "acme", "tick.read"), hallPath,
	); opens != "" || !strings.HasPrefix(got, "unimplemented") {
		t.Errorf("gateway without a secret: %q, %s", opens, got)
	}
}

func manyRights() (rights []string) {
	for i := range 300 {
		rights = append(rights, fmt.Sprintf("tick.read:rooms/%04d", i))
	}
	return rights
}

// A tenant that is suspended or over its rate receives no tickets, also with a credential for
// several tenants, which names the tenant in the request.
func TestCreateTicket_IsChargedToTenant(t *testing.T) {
	acme := natstest.Tenant(t, "acme")
	for name, tenants := range map[string]string{
		"one tenant": "acme", "two tenants": "acme,globex", "all tenants": "*",
	} {
		e := startTickets(t, nil) // with a rate that no other case has used up
		token := e.token(t, tenants, "tick.read")
		e.edge.edge.SetTenants(map[contextkit.TenantID]gateway.TenantState{acme: {Suspended: true, Reason: "unpaid"}})
		if opens, got := e.createTicket(t, token, hallPath, contextkit.HeaderTenantID, "acme"); opens != "" ||
			!strings.HasPrefix(got, "permission_denied tenant acme is suspended: unpaid") {
			t.Errorf("%s, suspended: %q, %s", name, opens, got)
		}
		e.edge.edge.SetTenants(
			map[contextkit.TenantID]gateway.TenantState{acme: {Limits: limit.Config{Rate: 1e-6, Burst: 2}}},
		)
		limited := 0
		for range 4 {
			if _, got := e.createTicket(
				t, token, hallPath, contextkit.HeaderTenantID, "acme",
			); strings.HasPrefix(got, "resource_exhausted") {
				limited++
			}
		}
		if limited < 2 {
			t.Errorf("%s: %d of 4 tickets rejected, want at least 2", name, limited)
		}
		if name == "one tenant" {
			continue
		}
		if opens, got := e.createTicket(t, token, hallPath, contextkit.HeaderTenantID, "globex"); opens == "" {
			t.Errorf("%s: ticket for another tenant: %s", name, got)
		}
	}
}

// An answer to a URL with a ticket forbids browsers to send the URL to other sites, also if the
// ticket is invalid.
func TestTicket_AnswersForbidReferrer(t *testing.T) {
	e := startTickets(t, nil)
	for _, path := range []string{
		hallPath + "?headgate_ticket=x", hallPath + "?headgate_ticket=x&headgate_ticket=y",
		"/v1/query/wallets?headgate_ticket=x",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Referrer-Policy"); res.StatusCode < http.StatusBadRequest || got != "no-referrer" {
			t.Errorf("%s: %d, Referrer-Policy %q", path, res.StatusCode, got)
		}
	}
}

// Neither an accepted nor a rejected ticket appears in the access log, the audit, spans, metrics,
// or at the node; and any gateway with the secret accepts it.
func TestTicket_IsNeverLogged(t *testing.T) {
	first := startTickets(t, nil)
	accepted, err := first.issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, ended := &logLines{}, &ends{}
	catalog, err := policy.NewCatalog(first.ticks.set(t))
	if err != nil {
		t.Fatal(err)
	}
	e := &ticketEdge{first.secondWith(t, gateway.Config{
		Listen:       rpc.Config{Name: "gateway", Addr: "127.0.0.1:0"},
		Auth:         accepted,
		TicketSecret: ticketSecret,
		OnEnd:        ended.add,
	}, catalog, zerolog.New(log).Level(zerolog.DebugLevel)), first.ticks}
	audited := e.records(t)
	opens, failed := first.createTicket(t, first.token(t, "acme", "tick.read"), hallPath)
	if opens == "" {
		t.Fatal(failed)
	}
	secret := opens[strings.Index(opens, rest.TicketParameter)+len(rest.TicketParameter)+1:][:40]
	s := e.began(t, opens, "", 1) // the other gateway's ticket
	s.close()
	<-e.ticks.done
	for _, path := range []string{
		"/v1/ticks/rooms/attic?", "/v1/ticks/rooms/hall?unknown=1&", "/v1/query/wallets?", "/v1/nothing?", "//?",
		"/test.Ticker/Watch?", "/openapi.json?", "/ready?tenant=acme&",
	} {
		_, query, _ := strings.Cut(opens, "?")
		for _, parameter := range []string{query, strings.Replace(query, "_", "%5f", 1)} {
			e.http(t, http.MethodGet, path+parameter, "")
			e.http(t, http.MethodPost, path+parameter, "{}")
		}
	}
	record, _ := audited.next(t)
	for record.Procedure == "" || record.Decision != "denied" {
		record, _ = audited.next(t)
	}
	if text, _ := json.Marshal(record); strings.Contains(string(text), secret) {
		t.Errorf("the audit log contains the ticket: %s", text)
	}
	if log.has(secret) {
		t.Error("the log contains the ticket")
	}
	if !log.has(`"procedure":"/test.Ticker/Watch"`, `"principal":"app"`) {
		t.Error("the access log lacks the stream")
	}
	ended.mu.Lock()
	defer ended.mu.Unlock()
	if text := fmt.Sprintf("%+v", ended.list); len(ended.list) == 0 || strings.Contains(text, secret) {
		t.Errorf("no spans, or spans with the ticket: %s", text)
	}
	for _, line := range e.series(t, "") {
		if strings.Contains(line, secret) {
			t.Errorf("the metrics contain the ticket: %s", line)
		}
	}
}
