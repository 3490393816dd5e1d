package node

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// paged returns the message of a request that has the page's fields, the request itself or its field query; nil: the
// method returns no pages.
func paged(req protoreflect.Message) protoreflect.Message {
	if req.Descriptor().Fields().ByName("page_token") != nil {
		return req
	}
	query := req.Descriptor().Fields().ByName("query")
	if query == nil || query.Message() == nil || query.Message().Fields().ByName("page_token") == nil {
		return nil
	}
	return req.Mutable(query).Message()
}

// withPage returns a request for a page of one item.
func withPage(req proto.Message, token string) proto.Message {
	req = proto.Clone(req)
	page := paged(req.ProtoReflect())
	fields := page.Descriptor().Fields()
	page.Set(fields.ByName("page_size"), protoreflect.ValueOfInt32(1))
	page.Set(fields.ByName("page_token"), protoreflect.ValueOfString(token))
	return req
}

// Every method with pages accepts the tokens that it issued for the same request, and rejects all others as the
// client's fault: malformed and altered ones, those of another tenant, and those of another method.
func checkPageTokens(
	t *testing.T, d *devPlatform, request func(m protoreflect.MethodDescriptor, tenant string) proto.Message,
) {
	operator := d.token(t, "*")
	methods, tokens := map[protoreflect.FullName]protoreflect.MethodDescriptor{}, map[protoreflect.FullName]string{}
	for _, m := range policedMethods() {
		if !isRead(m) || !hasField(m, "tenant_id") {
			continue
		}
		req := request(m, "acme")
		if paged(proto.Clone(req).ProtoReflect()) == nil {
			continue
		}
		methods[m.FullName()] = m
		// Until all nodes are known to read sealed tokens, a runner issues numbers.
		eventually(t, string(m.FullName())+" issues sealed page tokens", func() bool {
			res := d.mustCall(t, "gateway", m, withPage(req, ""), operator...).ProtoReflect()
			token := res.Get(res.Descriptor().Fields().ByName("next_page_token")).String()
			tokens[m.FullName()] = token
			return len(token) > 20
		})
	}
	if len(methods) < 7 {
		t.Errorf("%d methods with pages", len(methods))
	}
	for name, m := range methods {
		token := tokens[name]
		d.mustCall(t, "gateway", m, withPage(request(m, "acme"), token), operator...)
		altered := strings.Map(func(c rune) rune {
			return map[bool]rune{true: 'B', false: 'A'}[c == 'A']
		}, token[len(token)/2:len(token)/2+1])
		forged := map[string]string{
			"digit":       "1",
			"text":        "zz",
			"not base64":  "not a token",
			"zero bytes":  strings.Repeat("A", len(token)),
			"truncated":   token[:len(token)-1],
			"altered":     token[:len(token)/2] + altered + token[len(token)/2+1:],
			"with suffix": token + "A",
		}
		for other, foreign := range tokens {
			if other != name {
				forged["of "+string(other)] = foreign
			}
		}
		for what, text := range forged {
			if _, err := d.call(t, "gateway", m, withPage(request(m, "acme"), text), operator...); status.Code(err) !=
				codes.InvalidArgument {
				t.Errorf("%s, page token %s: %v, want INVALID_ARGUMENT", name, what, err)
			}
		}
		if _, err := d.call(t, "gateway", m, withPage(request(m, "globex"), token), operator...); status.Code(err) !=
			codes.InvalidArgument {
			t.Errorf("%s, page token of another tenant: %v, want INVALID_ARGUMENT", name, err)
		}
	}
}
