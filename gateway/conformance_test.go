package gateway_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
)

// The conformance suite of connectrpc.com runs the gateway between its reference client and its
// reference server. The suite starts this test binary as its server under test; the variables
// select its role.
const (
	conformanceGate       = "HEADGATE_CONFORMANCE"            // enables the suite
	conformanceDescriptor = "HEADGATE_CONFORMANCE_DESCRIPTOR" // set for the server under test
	conformanceReference  = "HEADGATE_CONFORMANCE_REFERENCE"
	conformancePort       = "HEADGATE_CONFORMANCE_PORT" // "main": gRPC is called at the main port too
)

func TestGateway_PassesConformanceSuite(t *testing.T) {
	if os.Getenv(conformanceGate) == "" {
		t.Skipf("set %s=1 to build and run the suite", conformanceGate)
	}
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("go", "build", "-modfile=tools/go.mod", "-o", dir, "connectrpc.com/conformance/cmd/connectconformance",
		"connectrpc.com/conformance/cmd/referenceserver")
	module := run("go", "list", "-modfile=tools/go.mod", "-m", "-f", "{{.Dir}}", "connectrpc.com/conformance")
	set := filepath.Join(dir, "set.binpb")
	run("go", "tool", "-modfile=tools/go.mod", "buf", "build", filepath.Join(module, "proto"),
		"--as-file-descriptor-set", "-o", set)
	permit(t, set)

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// gRPC is served at both ports, other protocols at the main one.
	for name, port := range map[string]struct{ name, conf string }{
		"all protocols, gRPC on its own port": {"", "testdata/conformance.yaml"},
		"gRPC on the main port":               {"main", "testdata/conformance-grpc.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			suite := exec.CommandContext(
				t.Context(), filepath.Join(dir, "connectconformance"), "--mode", "server", "--conf", port.conf,
				"--known-failing", "@testdata/conformance-known-failing.txt", "--known-flaky",
				"@testdata/conformance-known-flaky.txt", "--", self,
			)
			suite.Env = append(os.Environ(), conformanceDescriptor+"="+set,
				conformanceReference+"="+filepath.Join(dir, "referenceserver"), conformancePort+"="+port.name)
			out, err := suite.CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			t.Log(lines[len(lines)-1])
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// permit gives every method of the set's ConformanceService a policy for anonymous calls.
func permit(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	for _, file := range set.GetFile() {
		for _, service := range file.GetService() {
			for _, method := range service.GetMethod() {
				if method.Options == nil {
					method.Options = &descriptorpb.MethodOptions{}
				}
				proto.SetExtension(method.GetOptions(), policyv1.E_Policy, &policyv1.Policy{
					Anonymous:   true,
					TenantScope: policyv1.TenantScope_TENANT_SCOPE_PLATFORM,
					Upstream:    "conformance",
					Timeout:     durationpb.New(time.Minute),
				})
			}
		}
	}
	if data, err = proto.Marshal(&set); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serveConformance is the server under test: a gateway in front of a reference
// server.
func serveConformance() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	request, err := readDelimited(os.Stdin)
	if err != nil {
		return err
	}
	limit := varintField(request, 6) // message_receive_limit

	reference := exec.CommandContext(ctx, os.Getenv(conformanceReference))
	reference.Stderr = os.Stderr
	reference.Cancel = func() error { return reference.Process.Signal(syscall.SIGTERM) }
	stdin, err := reference.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := reference.StdoutPipe()
	if err != nil {
		return err
	}
	if err := reference.Start(); err != nil {
		return err
	}
	defer func() { stop(); _ = reference.Wait() }()
	const protocol, version, grpcProtocol, http2 = 1, 2, 2, 2
	ask := protowire.AppendVarint(protowire.AppendTag(nil, protocol, protowire.VarintType), grpcProtocol)
	ask = protowire.AppendVarint(protowire.AppendTag(ask, version, protowire.VarintType), http2)
	if err := writeDelimited(stdin, ask); err != nil {
		return err
	}
	answer, err := readDelimited(stdout)
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	endpoint, err := withoutLongDeadlines(ctx, fmt.Sprintf("127.0.0.1:%d", varintField(answer, 2)))
	if err != nil {
		return err
	}
	g, err := conformanceGateway(ctx, dir, endpoint, int(limit))
	if err != nil {
		return err
	}
	addr := g.Addr()
	// gRPC over HTTP/2 is called at the gRPC-only port or at the main one, other protocols at the
	// main one.
	if os.Getenv(conformancePort) != "main" && varintField(request, protocol) == grpcProtocol &&
		varintField(request, version) == http2 {
		addr = g.GRPCAddr()
	}
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return err
	}
	reply := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), host)
	reply = protowire.AppendVarint(protowire.AppendTag(reply, 2, protowire.VarintType), port)
	if err := writeDelimited(os.Stdout, reply); err != nil {
		return err
	}
	return g.Serve(ctx)
}

func conformanceGateway(ctx context.Context, dir, endpoint string, limit int) (*gateway.Gateway, error) {
	embedded, err := natsserver.Start(ctx, natsserver.Config{Dir: filepath.Join(dir, "nats"), LazySync: true})
	if err != nil {
		return nil, err
	}
	conn, err := embedded.Connect("conformance")
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	if err := setup.Ensure(ctx, js, 1); err != nil {
		return nil, err
	}
	issuer, err := auth.OpenIssuer(filepath.Join(dir, "key.json"), "conformance", "conformance")
	if err != nil {
		return nil, err
	}
	accepted, err := issuer.Config(ctx)
	if err != nil {
		return nil, err
	}
	set, err := os.ReadFile(os.Getenv(conformanceDescriptor))
	if err != nil {
		return nil, err
	}
	catalog, err := policy.NewCatalog(set)
	if err != nil {
		return nil, err
	}
	routes := route.NewTable()
	if err := routes.Replace(
		[]route.Node{{ID: "reference", Kind: "conformance", Endpoint: endpoint, Ready: true}}, nil,
	); err != nil {
		return nil, err
	}
	g, err := gateway.New(gateway.Config{Listen: rpc.Config{
		GRPC:         "127.0.0.1:0",
		Name:         "gateway",
		Addr:         "127.0.0.1:0",
		MaxBodyBytes: limit,
	}, Auth: accepted}, catalog, routes, js, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	return g, g.Listen(ctx)
}

// withoutLongDeadlines is a proxy in front of the reference server, which reports its deadline: the
// suite expects the client's deadline or none, but the gateway sets one for every upstream call.
// The proxy removes those of about half a minute; the suite's are much shorter.
func withoutLongDeadlines(ctx context.Context, server string) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(frame.GRPCCodec{})), grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry())
	if err != nil {
		return "", err
	}
	shim := grpc.NewServer(
		grpc.ForceServerCodecV2(frame.GRPCCodec{}),
		grpc.UnknownServiceHandler(func(_ any, edge grpc.ServerStream) error {
			return passOn(conn, edge)
		}),
	)
	go func() { _ = shim.Serve(listener) }() // ends with the process
	return listener.Addr().String(), nil
}

func passOn(conn *grpc.ClientConn, edge grpc.ServerStream) error {
	const long = 20 * time.Second
	ctx, cancel := context.WithCancel(context.WithoutCancel(edge.Context()))
	defer cancel()
	defer context.AfterFunc(edge.Context(), cancel)()
	if deadline, ok := edge.Context().Deadline(); ok && time.Until(deadline) < long {
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	md, _ := metadata.FromIncomingContext(edge.Context())
	method, _ := grpc.MethodFromServerStream(edge)
	node, err := conn.NewStream(metadata.NewOutgoingContext(ctx, md),
		&grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	go func() { // ends with the edge's stream
		for {
			message := &frame.Frame{}
			if err := edge.RecvMsg(message); err != nil {
				_ = node.CloseSend()
				return
			}
			if node.SendMsg(message) != nil {
				return
			}
		}
	}()
	defer func() { edge.SetTrailer(node.Trailer()) }()
	if header, err := node.Header(); err == nil && header != nil {
		_ = edge.SendHeader(header)
	}
	for {
		message := &frame.Frame{}
		if err := node.RecvMsg(message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := edge.SendMsg(message); err != nil {
			return err
		}
	}
}

// Messages between the suite and its programs have a length prefix.

func readDelimited(r io.Reader) ([]byte, error) {
	reader := bufio.NewReaderSize(r, 16) // no more than the message is needed, and nothing follows it
	var length [4]byte
	if _, err := io.ReadFull(reader, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(reader, message)
	return message, err
}

func writeDelimited(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}

// varintField returns a field of a message, 0 if it is absent.
func varintField(message []byte, number protowire.Number) uint64 {
	for len(message) > 0 {
		n, wireType, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return 0
		}
		size := protowire.ConsumeFieldValue(n, wireType, message[tag:])
		if size < 0 {
			return 0
		}
		if n == number && wireType == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(message[tag:])
			return v
		}
		message = message[tag+size:]
	}
	return 0
}
