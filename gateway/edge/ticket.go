package edge

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect/v2"
)

// TicketParameter is the query parameter with a ticket: the credential of one stream of Server-Sent
// Events, for clients that cannot send headers.
const TicketParameter = "headgate_ticket"

// Ticket is the ticket of a request. It is removed from the request, so that it appears in no log,
// error or span. The authenticator sets ID, Resume and Prove.
type Ticket struct {
	// Text is the ticket as sent by the client.
	Text string
	// Target is the canonical path and query of the request.
	Target string
	// LastEventID is the Last-Event-ID header of a client that reconnects; "": none.
	LastEventID string
	// ID is the id of the ticket.
	ID string
	// Resume is the id of the event after which the stream continues; "": none.
	Resume string
	// Prove returns the proof that the ticket's stream sent an event to a client; it is appended to
	// the event's id.
	Prove func(id string) string
}

// proofMark separates an event's id from its proof.
const proofMark = '~'

// SplitEventID splits the id of an event that a stream with a ticket has sent; ok is false for any
// other id.
func SplitEventID(id string) (event, proof string, ok bool) {
	at := strings.LastIndexByte(id, proofMark)
	if at < 0 {
		return "", "", false
	}
	return id[:at], id[at+1:], true
}

// TicketOf returns the ticket of a stream that [REST] made; nil if it has none.
func TicketOf(of connect.ServerStream) *Ticket {
	if e, ok := of.(*events); ok {
		return e.ticket
	}
	return nil
}

// eventID appends the id of an event, with its proof if the stream has a ticket. It appends nothing
// for an id that Server-Sent Events cannot carry: a line break would end it, and clients ignore an
// id with NUL.
func (e *events) eventID(dst []byte, id string) []byte {
	if strings.ContainsAny(id, "\r\n\x00") {
		return dst
	}
	dst = append(append(dst, "id: "...), id...)
	if e.ticket != nil && e.ticket.Prove != nil {
		dst = append(append(dst, proofMark), e.ticket.Prove(id)...)
	}
	return append(dst, '\n')
}

// errManyTickets rejects a request with several tickets.
var errManyTickets = connect.NewError(connect.CodeInvalidArgument,
	"query parameter "+TicketParameter+" is given more than once: send it once")

// errNoTicket rejects a ticket at a method that accepts none.
var errNoTicket = connect.NewError(connect.CodeInvalidArgument,
	"query parameter "+TicketParameter+" opens streams of Server-Sent Events (GET) only: send an authorization header")

// cutTicket returns a query string without its ticket, and the ticket; found is false if there is
// none.
func cutTicket(raw string) (rest, ticket string, found bool, err error) {
	kept := make([]string, 0, 8)
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if !isTicket(name) {
			kept = append(kept, part)
			continue
		}
		if found {
			err = errManyTickets
		}
		found, ticket = true, value
	}
	return strings.Join(kept, "&"), ticket, found, err
}

// isTicket reports whether a parameter's name, however escaped, is TicketParameter.
func isTicket(name string) bool {
	at := 0
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			high, low := strings.IndexByte(hexDigits, name[i+1]|0x20), strings.IndexByte(hexDigits, name[i+2]|0x20)
			if high < 0 || low < 0 {
				return false
			}
			c = byte(high<<4 | low)
			i += 2
		}
		if at == len(TicketParameter) || TicketParameter[at] != c {
			return false
		}
		at++
	}
	return at == len(TicketParameter)
}

const hexDigits = "0123456789abcdef"

// hasTicket reports whether a query string has a ticket. It does not allocate.
func hasTicket(raw string) bool {
	for raw != "" {
		var part string
		part, raw, _ = strings.Cut(raw, "&")
		if name, _, _ := strings.Cut(part, "="); isTicket(name) {
			return true
		}
	}
	return false
}

// extractTicket returns the request without its ticket, and the ticket; nil if it has none.
func extractTicket(req *http.Request) (_ *http.Request, ticket *Ticket, err error) {
	rest, text, found, err := cutTicket(req.URL.RawQuery)
	if !found {
		return req, nil, nil
	}
	copied, u := req.WithContext(req.Context()), *req.URL
	u.RawQuery = rest
	copied.URL, copied.RequestURI = &u, u.RequestURI()
	return copied, &Ticket{Text: text, Target: target(&u), LastEventID: req.Header.Get(headerLastEvent)}, err
}

// target returns the canonical text of a path and a query: requests for the same resource with the
// same parameters in the same order have the same target, however they are escaped (RFC 3986
// §6.2.2). Delimiters keep their meaning: an escaped slash is not a delimiter.
func target(u *url.URL) string {
	text := appendCanonical(nil, pathOf(u), "/:")
	if u.RawQuery != "" {
		text = appendCanonical(append(text, '?'), u.RawQuery, "&=")
	}
	return string(text)
}

const upperHex = "0123456789ABCDEF"

// appendCanonical appends a text, percent-encoding all characters except unreserved ones (RFC 3986
// §2.3) and the given delimiters.
func appendCanonical(dst []byte, text, delimiters string) []byte {
	for i := 0; i < len(text); i++ {
		c, escaped := text[i], false
		if c == '%' && i+2 < len(text) {
			if b, err := url.PathUnescape(text[i : i+3]); err == nil {
				c, escaped = b[0], true
				i += 2
			}
		}
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~',
			!escaped && strings.IndexByte(delimiters, c) >= 0:
			dst = append(dst, c)
		case c == '+' && !escaped && delimiters[0] == '&': // a space in a query
			dst = append(dst, "%20"...)
		default:
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&0xf])
		}
	}
	return dst
}

// EventStream returns the procedure of the stream of Server-Sent Events that a GET of a path with
// its query opens, and its canonical target, as in [Ticket]. It returns INVALID_ARGUMENT for a text
// that is not a path, or not of such a stream.
func (r *REST) EventStream(ctx context.Context, path string) (procedure, canonical string, err error) {
	u, err := url.ParseRequestURI(path)
	if err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
		strings.ContainsAny(path, "#\\") {
		return "", "", connect.NewError(connect.CodeInvalidArgument,
			`path: not a path with an optional query, such as "/v1/rooms/hall:watch?after=7"`)
	}
	if _, _, found, _ := cutTicket(u.RawQuery); found {
		return "", "", connect.NewError(connect.CodeInvalidArgument,
			"path: has a ticket already: remove "+TicketParameter)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody)
	if err != nil {
		return "", "", connect.NewError(connect.CodeInvalidArgument, "path: malformed")
	}
	b, _, _ := r.find(req)
	if b == nil || !b.opensEvents() {
		return "", "", connect.NewError(connect.CodeInvalidArgument,
			"path: GET does not open a stream of Server-Sent Events")
	}
	return b.method.Spec.Procedure, target(u), nil
}

// opensEvents reports whether a GET of the rule's path opens a stream of Server-Sent Events.
func (b *binding) opensEvents() bool {
	return b.verb == http.MethodGet && b.method.Spec.StreamType == connect.StreamTypeServer && !b.rawAnswers
}

// ticketed extracts the ticket from a request for the rule.
func (b *binding) ticketed(req *http.Request) (*http.Request, *Ticket, error) {
	req, ticket, err := extractTicket(req)
	if ticket != nil && !b.opensEvents() {
		err = errNoTicket
	}
	return req, ticket, err
}
