// Command oapi calls a gateway by the client that oapi-codegen makes: URL and TOKEN are its
// arguments. It prints what is answered.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	client "github.com/headgate/headgate/tools/openapi/oapi/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the context ends with the process
	}
}

func run(ctx context.Context, url, token string) error {
	c, err := client.NewClientWithResponses(
		url, client.WithRequestEditorFn(func(_ context.Context, req *http.Request) error {
			req.Header.Set("Authorization", "Bearer "+token)
			return nil
		}),
	)
	if err != nil {
		return err
	}
	submit := func(
		key, command string, payload map[string]any,
	) (*client.AggregateGatewayV1CommandServiceSubmitResponse, error) {
		return c.AggregateGatewayV1CommandServiceSubmitWithResponse(ctx, "wallet", "oapi", command,
			&client.AggregateGatewayV1CommandServiceSubmitParams{IdempotencyKey: &key},
			client.AggregateGatewayV1SubmitRequest{Payload: &payload})
	}
	for _, key := range []string{"o1", "o1"} {
		opened, err := submit(key, "open", map[string]any{"owner": "Ada & Söhne"})
		if err != nil || opened.JSON200 == nil {
			return fmt.Errorf("submit: %w: %s", err, opened.Body)
		}
		fmt.Println("submit", *(*opened.JSON200.Events)[0].Type, *opened.JSON200.Version,
			opened.JSON200.Replayed != nil)
	}
	refused, err := submit("o2", "withdraw", map[string]any{"amount": 1})
	if err != nil || refused.JSONDefault == nil {
		return fmt.Errorf("submit: %w: %s", err, refused.Body)
	}
	fmt.Println("refused", refused.StatusCode(), refused.JSONDefault.Code, *refused.JSONDefault.Message)
	paid, err := submit("o3", "deposit", map[string]any{"amount": 5})
	if err != nil || paid.JSON200 == nil {
		return fmt.Errorf("submit: %w: %s", err, paid.Body)
	}

	filter, size, fields := `owner = "Ada & Söhne"`, int32(1), []string{"owner", "balance"}
	page, err := c.ProjectionGatewayV1QueryServiceQuery2WithResponse(
		ctx, "wallets", &client.ProjectionGatewayV1QueryServiceQuery2Params{
			QueryFilter:   &filter,
			QueryPageSize: &size,
			QueryFields:   &fields,
			Metadata:      &map[string]string{"of": "a test"},
			MinPosition:   paid.JSON200.Position,
		},
	)
	if err != nil || page.JSON200 == nil {
		return fmt.Errorf("query: %w: %s", err, page.Body)
	}
	fmt.Println("query", *page.JSON200.Rows)
	same, err := c.ProjectionGatewayV1QueryServiceQuery2WithResponse(
		ctx, "wallets", &client.ProjectionGatewayV1QueryServiceQuery2Params{
			QueryFilter:   &filter,
			QueryPageSize: &size,
			QueryFields:   &fields,
			IfNoneMatch:   page.Headers200.Etag,
		},
	)
	if err != nil {
		return err
	}
	fmt.Println("unchanged", same.StatusCode())

	stream, err := c.ProjectionGatewayV1QueryServiceWatch(ctx, "wallets",
		&client.ProjectionGatewayV1QueryServiceWatchParams{Filter: &filter})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Body.Close() }() // it has been read
	lines := bufio.NewScanner(stream.Body)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"balance":5`) {
			fmt.Println("watch", stream.Header.Get("Content-Type"))
			break
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}

	yes, large, red := true, "9007199254740993", client.COLORRED
	shaped, err := c.ShapesV1ShapesGet2WithResponse(ctx, "a/b c", &client.ShapesV1ShapesGet2Params{
		AnInt64:   &large,
		BoolValue: &yes,
		Color:     &red,
		Tags:      &[]string{"a,b", "c&d"},
		Labels:    &map[string]string{"a b": "c=d"},
	})
	if err != nil || shaped.JSON200 == nil {
		return fmt.Errorf("shapes: %w: %s", err, shaped.Body)
	}
	fmt.Println("shapes", *shaped.JSON200.Name, *shaped.JSON200.AnInt64, *shaped.JSON200.BoolValue,
		*shaped.JSON200.Color, *shaped.JSON200.Tags, *shaped.JSON200.Labels)
	return nil
}
