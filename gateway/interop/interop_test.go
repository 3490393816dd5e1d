// Package interop_test runs grpc-go's interoperability cases
// (https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md) through both
// ports of the gateway, with grpc-go's own test server as the node.
package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/headgate/headgate/internal/natstest"
)

// interopTarget is set for the process that runs the client: the address to call. Its arguments are
// the cases. grpc-go's cases end the process when they fail.
const interopTarget = "HEADGATE_INTEROP_TARGET"

func TestMain(m *testing.M) {
	if target := os.Getenv(interopTarget); target != "" {
		if err := call(target, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	natstest.Main(m)
}

// interopCase is a case of grpc-go's client.
type interopCase struct {
	name string
	run  func(ctx context.Context, conn *grpc.ClientConn, client testgrpc.TestServiceClient)
	// config is the client's service config, "" for the default.
	config string
}

// plainly is a case that calls the test service only.
func plainly(
	name string, do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption), options ...grpc.CallOption,
) interopCase {
	return interopCase{
		name: name,
		run: func(ctx context.Context, _ *grpc.ClientConn, client testgrpc.TestServiceClient) {
			do(ctx, client, options...)
		},
	}
}

// orcaConfig makes grpc-go's client read the load reports that the node sends.
const orcaConfig = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

var compressed = grpc.UseCompressor(gzip.Name)

// interopCases are all cases of grpc-go's client, with the compressed variants of some, except
// those in leftOut.
var interopCases = []interopCase{
	plainly("empty_unary", interop.DoEmptyUnaryCall),
	plainly("large_unary", interop.DoLargeUnaryCall),
	plainly("client_streaming", interop.DoClientStreaming),
	plainly("server_streaming", interop.DoServerStreaming),
	plainly("ping_pong", interop.DoPingPong),
	plainly("empty_stream", interop.DoEmptyStream),
	plainly("timeout_on_sleeping_server", interop.DoTimeoutOnSleepingServer),
	plainly("cancel_after_begin", interop.DoCancelAfterBegin),
	plainly("cancel_after_first_response", interop.DoCancelAfterFirstResponse),
	plainly("custom_metadata", interop.DoCustomMetadata),
	plainly("status_code_and_message", interop.DoStatusCodeAndMessage),
	plainly("special_status_message", interop.DoSpecialStatusMessage),
	plainly("empty_unary, compressed", interop.DoEmptyUnaryCall, compressed),
	plainly("large_unary, compressed", interop.DoLargeUnaryCall, compressed),
	plainly("client_streaming, compressed", interop.DoClientStreaming, compressed),
	plainly("server_streaming, compressed", interop.DoServerStreaming, compressed),
	plainly("ping_pong, compressed", interop.DoPingPong, compressed),
	{name: "unimplemented_method", run: func(ctx context.Context, conn *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoUnimplementedMethod(ctx, conn)
	}},
	{
		name: "unimplemented_service",
		run: func(ctx context.Context, conn *grpc.ClientConn, _ testgrpc.TestServiceClient) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		},
	},
	{
		name:   "orca_per_rpc",
		config: orcaConfig,
		run: func(ctx context.Context, _ *grpc.ClientConn, client testgrpc.TestServiceClient) {
			interop.DoORCAPerRPCTest(ctx, client)
		},
	},
	{name: "rpc_soak", run: func(ctx context.Context, conn *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoSoakTest(ctx, soak(conn.Target(), func() (*grpc.ClientConn, func()) { return conn, func() {} }))
	}},
	{name: "channel_soak", run: func(ctx context.Context, conn *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoSoakTest(ctx, soak(conn.Target(), func() (*grpc.ClientConn, func()) {
			next, err := dial(conn.Target(), "")
			if err != nil {
				panic(err) // the address has been used before
			}
			return next, func() { _ = next.Close() }
		}))
	}},
}

// leftOut lists the specification's cases that are not run, with the reason.
var leftOut = map[string]string{
	"cacheable_unary":             "grpc-go's client does not have it",
	"client_compressed_unary":     "grpc-go's server does not know expect_compressed; see the compressed variants",
	"server_compressed_unary":     "grpc-go's server does not know response_compressed",
	"client_compressed_streaming": "grpc-go's server does not know expect_compressed; see the compressed variants",
	"server_compressed_streaming": "grpc-go's server does not know response_compressed",
	"pick_first_unary":            "grpc-go's server does not know fill_server_id",
	"compute_engine_creds":        "it needs a virtual machine of Google's",
	"jwt_token_creds":             "it needs a service account of Google's",
	"oauth2_auth_token":           "it needs a service account of Google's",
	"per_rpc_creds":               "it needs a service account of Google's",
	"google_default_credentials":  "it needs credentials of Google's",
	"orca_oob": "outside grpc-go's own module a server reports every 30 s at most, which is the " +
		"case's bound",
	"concurrent_large_unary": "the specification names it and describes nothing",
}

// soak are the bounds of the soak cases.
func soak(target string, channel func() (*grpc.ClientConn, func())) interop.SoakTestConfig {
	return interop.SoakTestConfig{
		RequestSize:                      271_828,
		ResponseSize:                     314_159,
		PerIterationMaxAcceptableLatency: 10 * time.Second,
		OverallTimeout:                   30 * time.Second,
		ServerAddr:                       target,
		NumWorkers:                       2,
		Iterations:                       10,
		ChannelForTest:                   channel,
	}
}

func dial(target, config string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if config != "" {
		options = append(options, grpc.WithDisableServiceConfig(), grpc.WithDefaultServiceConfig(config))
	}
	return grpc.NewClient(target, options...)
}

// passed is the prefix of the line for a passed case.
const passed = "passed: "

// call runs cases against a target, each on a separate connection.
func call(target string, names []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range names {
		n := slices.IndexFunc(interopCases, func(c interopCase) bool { return c.name == name })
		if n < 0 {
			return fmt.Errorf("there is no case %q", name)
		}
		conn, err := dial(target, interopCases[n].config)
		if err != nil {
			return err
		}
		interopCases[n].run(ctx, conn, testgrpc.NewTestServiceClient(conn))
		if err := conn.Close(); err != nil {
			return err
		}
		fmt.Println(passed + name)
	}
	return nil
}

// failures runs all cases against a target and returns the output of the failed ones.
func failures(t *testing.T, target string) map[string]string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var rest []string
	for _, c := range interopCases {
		rest = append(rest, c.name)
	}
	failed := map[string]string{}
	for len(rest) > 0 {
		var stdout, stderr bytes.Buffer
		client := exec.CommandContext(t.Context(), self, rest...)
		client.Env = append(os.Environ(), interopTarget+"="+target)
		client.Stdout, client.Stderr = &stdout, &stderr
		err := client.Run()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
			t.Fatal(err)
		}
		rest = rest[strings.Count(stdout.String(), passed):]
		if err != nil && len(rest) > 0 {
			failed[rest[0]] = strings.TrimSpace(stderr.String())
			rest = rest[1:]
		}
	}
	return failed
}

func TestInterop_EveryCasePassesAtBothPorts(t *testing.T) {
	if testing.Short() {
		t.Skip("its cases last for seconds")
	}
	node := startNode(t)
	mainPort, grpcPort := startGateway(t, node)
	for name, target := range map[string]string{"directly": node, "main port": mainPort, "gRPC port": grpcPort} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := failures(t, target)
			for _, c := range interopCases {
				if reason, ok := failed[c.name]; ok {
					t.Errorf("%s: %s", c.name, reason)
				}
			}
		})
	}
	for name := range leftOut {
		if slices.ContainsFunc(interopCases, func(c interopCase) bool { return c.name == name }) {
			t.Errorf("%s is left out and run", name)
		}
	}
}
