package gateway

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/auditlog"
)

// A record has values of the fields that the policy lists, and of the others only that they were set. No input makes
// it read more than its bound.
func TestRequestFields_ValuesAreThoseOfThePolicy(t *testing.T) {
	table, err := policy.Build(protoregistry.GlobalFiles, transcode.NewCompiler(nil))
	if err != nil {
		t.Fatal(err)
	}
	many := make([]int64, 500)
	for n := range many {
		many[n] = int64(n)
	}
	revision := int64(-3)
	for _, c := range []struct {
		procedure string
		request   proto.Message
		want      string
	}{
		{"/control.v1.TenantService/SetQuota", &controlv1.SetQuotaRequest{
			TenantId:         "acme",
			Quota:            &controlv1.Quota{Rate: 2.5, Streams: 4},
			ExpectedRevision: &revision,
		}, "tenant_id=acme quota.rate=2.5 quota.streams=4 expected_revision=-3"},
		{
			"/control.v1.TenantService/SetQuota", &controlv1.SetQuotaRequest{Quota: &controlv1.Quota{}}, "quota(0)",
		},
		{"/control.v1.ModelService/ApplyModel", &controlv1.ApplyModelRequest{
			Text: strings.Repeat("secret", 1000),
			Note: "why",
		}, "note=why text(6000)"},
		{"/control.v1.AuditService/QueryAudit", &controlv1.QueryAuditRequest{ChangesOnly: true, PageSize: 3},
			"changes_only=true page_size(1)"},
		{"/control.v1.ApiKeyService/RevokeApiKey", &controlv1.RevokeApiKeyRequest{
			Id: "hgk_c.1_" + strings.Repeat("s", 43),
		}, "id=hgk_c.1_…"},
		{"/runner.admin.v1.RunnerAdmin/DiscardDeadLetters", &adminv1.DiscardDeadLettersRequest{
			Ids:    []int64{7, 300},
			Reason: "said so",
		}, "ids=7,300 reason(7)"},
		{
			"/runner.admin.v1.RunnerAdmin/DiscardDeadLetters", &adminv1.DiscardDeadLettersRequest{Ids: many},
			"ids=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,…",
		},
	} {
		method, ok := table.Method(c.procedure)
		if !ok {
			t.Fatal(c.procedure)
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.request)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, field := range requestFields(method, data) {
			if field.Value != nil {
				got = append(got, field.Name+"="+*field.Value)
			} else {
				got = append(got, fmt.Sprintf("%s(%d)", field.Name, field.Bytes))
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", c.procedure, text, c.want)
		}
	}
	issue, _ := table.Method("/control.v1.ApiKeyService/CreateTenantApiKey")
	// All rights of a key are recorded, or their number and digest.
	for length, whole := range map[int]bool{20: true, 128: false} {
		key := &controlv1.CreateTenantApiKeyRequest{TenantId: "acme"}
		for n := range 32 {
			key.Rights = append(key.Rights, fmt.Sprintf("%0*d", length, n))
		}
		data, err := proto.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		record := auditlog.Record{Request: requestFields(issue, data), Principal: strings.Repeat("p", 256)}.Bounded()
		got := *record.Request[slices.IndexFunc(record.Request,
			func(f auditlog.Field) bool { return f.Name == "rights" })].Value
		want := strings.Join(key.Rights, ",")
		if !whole {
			want = fmt.Sprintf("(32 values; SHA-256 of their lines: %x) %s,",
				sha256.Sum256([]byte(strings.Join(key.Rights, "\n")+"\n")), key.Rights[0])
		}
		if !strings.HasPrefix(got, want) || whole && record.Truncated {
			t.Errorf("rights of %d characters: got %q, want %q; %v", length, got, want, record.Truncated)
		}
	}
	unknown := strings.Repeat("\x80\x7d\x01", 5000) // field 2000
	if fields := requestFields(issue, []byte(unknown+"\x1a\x0aquery.read")); fields[0].Name != "rights" {
		t.Errorf("the first field is %s: unknown ones displace that of the policy", fields[0].Name)
	}
	drain, _ := table.Method("/runner.admin.v1.RunnerAdmin/Drain")
	for _, data := range [][]byte{
		[]byte(strings.Repeat("\x0a\x01n", 5000)), []byte(strings.Repeat("\x78\x01", 5000)), {0x0a, 0xff}, {0xff},
	} {
		if fields := requestFields(drain, data); len(fields) > maxAuditFields {
			t.Errorf("%d fields", len(fields))
		}
	}
}

// A singular field that is given again replaces its earlier value, wherever it stands, and moves no list; nor does a
// list displace another one, or lose its number and digest.
func TestRequestFields_RepeatedAndLongFieldsDisplaceNoOthers(t *testing.T) {
	table, err := policy.Build(protoregistry.GlobalFiles, transcode.NewCompiler(nil))
	if err != nil {
		t.Fatal(err)
	}
	const name, other, right = "\x0a\x01a", "\x0a\x01b", "\x1a\x0aquery.read"
	for label, c := range map[string]struct {
		data string
		want []string
	}{
		"a name after a list": {name + right + other, []string{"display_name=b", "rights=query.read"}},
		"a list after it again": {
			name + right + other + right, []string{"display_name=b", "rights=query.read,query.read"},
		},
		"a message many times": {
			strings.Repeat("\x22\x02\x08\x01", 30) + name + right,
			[]string{"lifetime.seconds=1", "display_name=a", "rights=query.read"},
		},
		"two long lists": {
			strings.Repeat("\x12\x3c"+strings.Repeat("t", 60), 32) +
				strings.Repeat("\x1a\x3c"+strings.Repeat("r", 60), 32) +
				name,
			[]string{"tenants=(32 values; SHA-256", "rights=(32 values; SHA-256", "display_name=a"},
		},
		"texts that are not ASCII": {
			strings.Repeat("\x1a\x3c"+strings.Repeat("é", 30), 32) + name,
			[]string{"rights=(32 values; SHA-256", "display_name=a"},
		},
		"too many values": {
			strings.Repeat("\x1a\x00", 3000) + name,
			[]string{"rights=(more than 1024 values; SHA-256", "display_name=a"},
		},
	} {
		t.Run(label, func(t *testing.T) {
			method, ok := table.Method("/control.v1.ApiKeyService/CreateApiKey")
			if !ok {
				t.Fatal("the method is unknown")
			}
			record := auditlog.Record{Request: requestFields(method, []byte(c.data))}.Bounded()
			for _, want := range c.want {
				name, value, _ := strings.Cut(want, "=")
				found := 0
				for _, field := range record.Request {
					if field.Name == name && field.Value != nil && strings.HasPrefix(*field.Value, value) {
						found++
					}
				}
				if found != 1 {
					t.Errorf("%d fields %s in %+v", found, want, record.Request)
				}
			}
		})
	}
}
