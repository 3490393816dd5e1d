// Command ogen calls a gateway by the client that ogen makes: URL and TOKEN are its arguments. It
// prints what is answered.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	client "github.com/headgate/headgate/tools/openapi/ogen/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the context ends with the process
	}
}

// bearer is the credential.
type bearer string

// Bearer implements [client.SecuritySource].
func (b bearer) Bearer(context.Context, client.OperationName) (client.Bearer, error) {
	return client.Bearer{Token: string(b)}, nil
}

// prefersEvents asks for Server-Sent Events, which ogen's client reads as they arrive.
type prefersEvents struct{}

// RoundTrip implements [http.RoundTripper].
func (prefersEvents) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", "text/event-stream, application/json")
	return http.DefaultTransport.RoundTrip(req)
}

func run(ctx context.Context, url, token string) error {
	c, err := client.NewClient(url, bearer(token), client.WithClient(&http.Client{Transport: prefersEvents{}}))
	if err != nil {
		return err
	}
	submit := func(key, command, payload string) (*client.AggregateGatewayV1SubmitResponse, error) {
		members := client.AggregateGatewayV1SubmitRequestPayload{}
		if err := members.UnmarshalJSON([]byte(payload)); err != nil {
			return nil, err
		}
		return c.AggregateGatewayV1CommandServiceSubmit(ctx,
			client.NewOptAggregateGatewayV1SubmitRequest(
				client.AggregateGatewayV1SubmitRequest{
					Payload: client.NewOptAggregateGatewayV1SubmitRequestPayload(members),
				},
			),
			client.AggregateGatewayV1CommandServiceSubmitParams{
				AggregateType:  "wallet",
				AggregateID:    "ogen",
				Command:        command,
				IdempotencyKey: client.NewOptString(key),
			})
	}
	for _, key := range []string{"g1", "g1"} {
		opened, err := submit(key, "open", `{"owner":"Bob & Söhne"}`)
		if err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		fmt.Println("submit", opened.Events[0].Type.Value, opened.Version.Value, opened.Replayed.Value)
	}
	_, err = submit("g2", "withdraw", `{"amount":1}`)
	refused, ok := errors.AsType[*client.ErrorStatusCodeWithHeaders](err)
	if !ok {
		return fmt.Errorf("submit: %w", err)
	}
	fmt.Println("refused", refused.StatusCode, refused.Response.Code, refused.Response.Message.Value)
	paid, err := submit("g3", "deposit", `{"amount":5}`)
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}

	query := client.ProjectionGatewayV1QueryServiceQuery2Params{
		View:          "wallets",
		QueryFilter:   client.NewOptString(`owner = "Bob & Söhne"`),
		QueryPageSize: client.NewOptInt32(1),
		QueryFields:   []string{"owner", "balance"},
		Metadata: client.NewOptProjectionGatewayV1QueryServiceQuery2Metadata(
			client.ProjectionGatewayV1QueryServiceQuery2Metadata{"of": "a test"},
		),
		MinPosition: paid.Position,
	}
	answer, err := c.ProjectionGatewayV1QueryServiceQuery2(ctx, query)
	page, ok := answer.(*client.ProjectionGatewayV1QueryResponseHeaders)
	if err != nil || !ok {
		return fmt.Errorf("query: %w: %T", err, answer)
	}
	fmt.Println("query", page.Response.Rows[0]["owner"], page.Response.Rows[0]["balance"])
	query.IfNoneMatch = page.Etag
	answer, err = c.ProjectionGatewayV1QueryServiceQuery2(ctx, query)
	_, isNew := answer.(*client.ProjectionGatewayV1QueryResponseHeaders)
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	fmt.Println("unchanged", !isNew)

	watched, err := c.ProjectionGatewayV1QueryServiceWatch(ctx,
		client.ProjectionGatewayV1QueryServiceWatchParams{View: "wallets", Filter: query.QueryFilter})
	stream, ok := watched.(*client.ProjectionGatewayV1QueryServiceWatchOKTextEventStream)
	if err != nil || !ok {
		return fmt.Errorf("watch: %w: %T", err, watched)
	}
	for found := false; !found; {
		event, err := stream.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		for _, change := range event.Data.Changes {
			if found = string(change.Row.Value["balance"]) == "5"; found {
				fmt.Println("watch", change.Key.Value, event.ID != "")
			}
		}
	}
	if err := stream.Close(); err != nil {
		return fmt.Errorf("watch: %w", err)
	}

	shaped, err := c.ShapesV1ShapesGet2(ctx, client.ShapesV1ShapesGet2Params{
		Name:      "a/b c",
		AnInt64:   client.NewOptStringInt64(9007199254740993),
		BoolValue: client.NewOptBool(true),
		Color:     client.NewOptShapesV1Color(client.ShapesV1ColorCOLORRED),
		Tags:      []string{"a,b", "c&d"},
		Labels:    client.NewOptShapesV1ShapesGet2Labels(client.ShapesV1ShapesGet2Labels{"a b": "c=d"}),
	})
	if err != nil {
		return fmt.Errorf("shapes: %w", err)
	}
	fmt.Println("shapes", shaped.Name.Value, shaped.AnInt64.Value, shaped.BoolValue.Value, shaped.Color.Value,
		shaped.Tags, shaped.Labels.Value)
	return nil
}
