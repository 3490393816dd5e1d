package node

import (
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
)

// devTokenTTL is the lifetime of the printed tokens.
const devTokenTTL = 24 * time.Hour

var (
	applicationRights = []string{
		"command.submit", "aggregate.read", "events.read", "query.read", "workflow.read", "metrics.read",
	}
	// transferRights are the rights of an application that requests transfers of the demo model, and changes nothing
	// else.
	transferRights = []string{"command.submit:transfer.request", "aggregate.read:transfer", "query.read:transfers"}
	operatorRights = []string{
		"runner.admin", "gateway.explain", "workflow.read", "query.read", "aggregate.read", "command.submit",
		"fleet.read", "fleet.admin", "audit.read", "events.read", "metrics.read",
		"key.admin", "token.revoke", "credential.read",
	}
)

var announcement = template.Must(
	template.New("").Parse(`Headgate is ready ({{.Took}}). Data: {{.Data}} · Ctrl-C stops it.

{{if .UI}}  Control UI  {{.Gateway}}/ui/   (sign in with $OPERATOR)
{{end}}  gateway     {{.Gateway}}   (JSON, Connect, gRPC, gRPC-Web; /health /ready /openapi.json)
{{with .GRPC}}  gRPC alone  {{.}}
{{end}}  operators   {{.Admin}}   (/metrics /nodes /debug/pprof)
  aggregate   {{.Aggregate}}
  projection  {{.Projection}}
  runner      {{.Runner}}
  control     {{.Control}}

Tokens, good for {{.TTL}}:
{{range .Tokens}}
export {{.Name}}={{.Token}}{{end}}

Try it (paste the exports above into the same shell first):
{{if .Demo}}
curl -s {{.Gateway}}/v1/commands/wallet/ada/open -H "authorization: Bearer ${{.First}}" --json '{"payload":{"owner":"Ada"},"idempotencyKey":"open-ada"}'
curl -s {{.Gateway}}/v1/commands/wallet/ada/deposit -H "authorization: Bearer ${{.First}}" --json '{"payload":{"amount":1250},"idempotencyKey":"deposit-1"}'
curl -s {{.Gateway}}/v1/query/wallets -H "authorization: Bearer ${{.First}}" --json '{"query":{"filter":"balance > 100","orderBy":"balance desc"}}'{{else}}
curl -s {{.Gateway}}/v1/views -H "authorization: Bearer ${{.First}}"
curl -s {{.Gateway}}/v1/control/model -H "authorization: Bearer $OPERATOR"{{end}}
curl -s {{.Gateway}}/admin/runner/status -H "authorization: Bearer $OPERATOR"

command -v buf >/dev/null || buf() { go tool -modfile=tools/go.mod buf "$@"; }
buf curl --http2-prior-knowledge --protocol grpc --reflect-header "authorization: Bearer ${{.First}}" -H "authorization: Bearer ${{.First}}" -d '{{.Request}}' {{.Gateway}}/projection.gateway.v1.QueryService/{{.Method}}
buf curl --http2-prior-knowledge -H "x-tenant-id: {{.Tenant}}" -d '{{.Request}}' {{.Projection}}/projection.gateway.v1.QueryService/{{.Method}}

`),
)

type announcedToken struct{ Name, Token string }

// announce prints the platform's addresses, and examples of its use that work with its model.
func (p *platform) announce(w io.Writer, took time.Duration) error {
	demo := p.demo()
	method, request := "ListViews", "{}"
	if demo {
		method, request = "Query", `{"view":"wallets"}`
	}
	var tokens []announcedToken
	for _, tenant := range p.tenants {
		principal, err := auth.NewPrincipal(tenant.String()+"-app", []string{tenant.String()}, applicationRights)
		if err != nil {
			return err
		}
		token, err := p.issuer.Issue(principal, devTokenTTL)
		if err != nil {
			return err
		}
		tokens = append(tokens, announcedToken{variable(tenant), token})
	}
	if demo {
		transfers, err := auth.NewPrincipal(p.tenants[0].String()+"-transfers", []string{p.tenants[0].String()},
			transferRights)
		if err != nil {
			return err
		}
		token, err := p.issuer.Issue(transfers, devTokenTTL)
		if err != nil {
			return err
		}
		tokens = append(tokens, announcedToken{variable(p.tenants[0]) + "_TRANSFERS", token})
	}
	operator, err := auth.NewPrincipal("operator", []string{"*"}, operatorRights)
	if err != nil {
		return err
	}
	token, err := p.issuer.Issue(operator, devTokenTTL)
	if err != nil {
		return err
	}
	tokens = append(tokens, announcedToken{"OPERATOR", token})
	err = announcement.Execute(w, map[string]any{
		"Took": took.Round(time.Millisecond), "UI": p.settings.Gateway.UI, "Data": p.config.Data, "TTL": devTokenTTL,
		"Tokens":  tokens,
		"Gateway": p.edge.gateway.URL(), "Admin": p.edge.gateway.AdminURL(), "GRPC": p.edge.gateway.GRPCAddr(),
		"Aggregate": p.aggregate.server.URL(), "Projection": p.projection.server.URL(), "Runner": p.runner.server.URL(),
		"Control": p.control.server.URL(),
		"Demo":    demo, "Method": method, "Request": request,
		"First": variable(p.tenants[0]), "Tenant": p.tenants[0],
	})
	if err != nil {
		return fmt.Errorf("print the announcement: %w", err)
	}
	return nil
}

// demo reports whether the platform's model is the demo of wallets.
func (p *platform) demo() bool { return p.models.Current().Text == p.wallet }

// variable returns the name of a tenant's shell variable.
func variable(tenant contextkit.TenantID) string {
	return strings.ToUpper(strings.ReplaceAll(tenant.String(), "-", "_"))
}
