package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
)

// greetings is a node's service.
type greetings struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
}

func (greetings) Query(ctx context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	rc, _ := contextkit.FromContext(ctx)
	row, err := structpb.NewStruct(map[string]any{"greeting": "hello " + rc.TenantID.String(), "view": req.GetView()})
	return &projectionv1.QueryResponse{Rows: []*structpb.Struct{row}}, err
}

// A gateway before one node: a JSON request with a token becomes a gRPC call for the token's tenant.
func Example() {
	ctx, stop := context.WithCancel(contextkit.PlatformContext(context.Background()))
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(dir)

	// Audit records are stored in NATS, here in this process.
	nats, err := natsserver.Start(ctx, natsserver.Config{Dir: filepath.Join(dir, "nats"), LazySync: true})
	check(err)
	defer nats.Close()
	conn, err := nats.Connect("example")
	check(err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	check(err)
	check(setup.Ensure(ctx, js, 1))

	node := rpc.NewServer(rpc.Config{Name: "projection", Addr: "127.0.0.1:0"},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	gatewayv1connect.RegisterQueryServiceHandler(node.RPC, greetings{})
	check(node.Listen(ctx))

	routes := route.NewTable()
	check(
		routes.Replace(
			[]route.Node{{ID: "projection-1", Kind: contextkit.KindProjection, Endpoint: node.Addr(), Ready: true}},
			nil,
		),
	)
	issuer, err := auth.OpenIssuer(filepath.Join(dir, "key.json"), "example", "headgate")
	check(err)
	accepted, err := issuer.Config(ctx)
	check(err)
	catalog, err := policy.NewCatalog() // of the services in this program
	check(err)
	edge, err := gateway.New(gateway.Config{Listen: rpc.Config{Name: "gateway", Addr: "127.0.0.1:0"}, Auth: accepted},
		catalog, routes, js, zerolog.Nop())
	check(err)
	check(edge.Listen(ctx))
	ended := make(chan error, 2)
	go func() { ended <- node.Serve(ctx) }()
	go func() { ended <- edge.Serve(ctx) }()

	principal, err := auth.NewPrincipal("ada", []string{"acme"}, []string{"query.read"})
	check(err)
	token, err := issuer.Issue(principal, time.Hour)
	check(err)
	for _, credential := range []string{"", "Bearer " + token} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, edge.URL()+"/v1/query/people",
			strings.NewReader("{}"))
		check(err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", credential)
		res, err := http.DefaultClient.Do(req)
		check(err)
		text, err := io.ReadAll(res.Body)
		check(err)
		_ = res.Body.Close()
		fmt.Println(res.StatusCode, strings.Contains(string(text), `"hello acme"`))
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	check(<-ended)
	check(<-ended)
	// Output:
	// 401 false
	// 200 true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
