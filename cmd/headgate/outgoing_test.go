package main_test

import (
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// senders are the functions of our dependencies by which something leaves the
// process, by their full names.
var senders = map[string]bool{
	"(*net/http.Client).Do": true, "(*net/http.Client).Get": true, "(*net/http.Client).Post": true,
	"(*net/http.Client).PostForm": true, "(*net/http.Client).Head": true,
	"net/http.Get": true, "net/http.Post": true, "net/http.PostForm": true, "net/http.Head": true,
	"(net/http.RoundTripper).RoundTrip": true, "(*net/http.Transport).RoundTrip": true,
	"net.Dial": true, "net.DialTimeout": true, "(*net.Dialer).Dial": true, "(*net.Dialer).DialContext": true,
	"crypto/tls.Dial": true, "(*crypto/tls.Dialer).DialContext": true,
	"google.golang.org/grpc.NewClient": true, "google.golang.org/grpc.Dial": true,
	"google.golang.org/grpc.DialContext":                                   true,
	"(*github.com/headgate/headgate/gateway/upstream/h2.Channel).Open":     true,
	"(*github.com/headgate/headgate/gateway/upstream/grpcgo.Channel).Open": true,
	"(github.com/headgate/headgate/gateway/upstream.client).Open":          true,
	"(*github.com/headgate/headgate/gateway/upstream.Transport).Open":      true,
	"(github.com/headgate/headgate/gateway/upstream.Opener).Open":          true,
	"(*google.golang.org/grpc.ClientConn).NewStream":                       true,
	"(*google.golang.org/grpc.ClientConn).Invoke":                          true,
	"connectrpc.com/connect/v2.NewClient":                                  true,
	"connectrpc.com/connect/v2/connecthttp.NewTransport":                   true,
	"connectrpc.com/connect/v2/connectinprocess.New":                       true,
	"github.com/nats-io/nats.go.Connect":                                   true,
	"(*github.com/nats-io/nats.go.Conn).Publish":                           true,
	"(*github.com/nats-io/nats.go.Conn).PublishMsg":                        true,
	"(*github.com/nats-io/nats.go.Conn).PublishRequest":                    true,
	"(*github.com/nats-io/nats.go.Conn).Request":                           true,
	"(*github.com/nats-io/nats.go.Conn).RequestMsg":                        true,
	"(*github.com/nats-io/nats.go.Conn).RequestWithContext":                true,
	"(*github.com/nats-io/nats.go.Conn).RequestMsgWithContext":             true,
	"(github.com/nats-io/nats.go/jetstream.Publisher).Publish":             true,
	"(github.com/nats-io/nats.go/jetstream.Publisher).PublishMsg":          true,
	"(github.com/nats-io/nats.go/jetstream.Publisher).PublishAsync":        true,
	"(github.com/nats-io/nats.go/jetstream.Publisher).PublishMsgAsync":     true,
	"github.com/synadia-io/orbit.go/jetstreamext.PublishMsgBatch":          true,
	"github.com/synadia-io/orbit.go/jetstreamext.NewBatchPublisher":        true,
	// A bucket's writes are publishes, and take no headers: none of these can carry the contract.
	"(github.com/nats-io/nats.go/jetstream.KeyValue).Put":           true,
	"(github.com/nats-io/nats.go/jetstream.KeyValue).PutString":     true,
	"(github.com/nats-io/nats.go/jetstream.KeyValue).Create":        true,
	"(github.com/nats-io/nats.go/jetstream.KeyValue).Update":        true,
	"(github.com/nats-io/nats.go/jetstream.KeyValue).Delete":        true,
	"(github.com/nats-io/nats.go/jetstream.KeyValue).Purge":         true,
	"(github.com/nats-io/nats.go/jetstream.KeyValue).PurgeDeletes":  true,
	"(github.com/nats-io/nats.go/jetstream.ObjectStore).Put":        true,
	"(github.com/nats-io/nats.go/jetstream.ObjectStore).PutBytes":   true,
	"(github.com/nats-io/nats.go/jetstream.ObjectStore).PutString":  true,
	"(github.com/nats-io/nats.go/jetstream.ObjectStore).PutFile":    true,
	"(github.com/nats-io/nats.go/jetstream.ObjectStore).Delete":     true,
	"(github.com/nats-io/nats.go/jetstream.ObjectStore).UpdateMeta": true,
}

// outgoing is every place in the process that something leaves by, with what
// makes it carry a tenant or the platform's scope, and the trace; and the test
// that shows so. "" is a place that only opens a connection, on which the others
// send, or that passes on what they have made.
var outgoing = map[string]struct{ carries, shown string }{
	"contextkit.NewClient connect.NewClient": {
		"its first interceptor injects the contract or fails the call",
		"contextkit.TestNewClient_CallWithoutContextFails"},
	"contextkit.roundTripper.RoundTrip http.RoundTrip": {
		"it injects the contract or fails the request", "contextkit.TestNewClient_CallWithoutContextFails"},
	"auth.newClient net.DialContext": {"", ""},
	"auth.fetch http.Do": {
		"the client's transport is contextkit.HTTPTransport, under the platform's context",
		"gateway/auth.TestKeyRing_RotatesWithoutRestart"},
	"node.AcceptLoss http.Do": {
		"the client's transport is contextkit.HTTPTransport, under the platform's context",
		"cmd/headgate.TestJournal_LossIsAcceptedThroughTheGateway"},
	"h2.Channel.dial net.DialContext":       {"", ""},
	"grpcgo.Channel.dial net.DialContext":   {"", ""},
	"grpcgo.NewChannel grpc.NewClient":      {"", ""},
	"grpcgo.Channel.Open grpc.NewStream":    {"", ""},
	"upstream.fastClient.Open h2.Open":      {"", ""},
	"upstream.plainClient.Open grpcgo.Open": {"", ""},
	"gateway.Gateway.open upstream.Open": {
		"Call.WriteHeader injects the contract, or it fails", "gateway.TestContract_RoundTripsOverEveryProtocol"},
	"upstream.Transport.NewClientStream upstream.Open": {
		"it is the transport of contextkit.NewClient, and of nothing else",
		"contextkit.TestNewClient_CallWithoutContextFails"},
	"upstream.Transport.Open upstream.Open": {"", ""},
	"upstream.watched.Open upstream.Open": {
		"it passes the call's own header on, with its own span", "gateway.TestOnUpstreamCall_EachAttemptHasSpan"},
	"tracing.roundTripper.RoundTrip http.RoundTrip": {
		"the transport below is contextkit.HTTPTransport, under a context with its own span",
		"internal/tracing.TestRoundTripper_RequestsHaveAClientSpan"},
	"upstream.outgoing.begin upstream.Open":            {"", ""},
	"natsclient.Connect nats.Connect":                  {"", ""},
	"natsserver.Embedded.Connect nats.Connect":         {"", ""},
	"natsclient.requestLeader nats.RequestWithContext": {"", ""},
	// Requests to JetStream's API, as those of the client library.
	"natsclient.RemoveMessage nats.RequestWithContext": {"", ""},
	"natsclient.CountAfter nats.RequestWithContext":    {"", ""},
	"kv.readSecret nats.RequestWithContext":            {"", ""},
	"natshealth.Storage.examine nats.Request":          {"", ""},
	"backup.ask nats.RequestWithContext":               {"", ""},
	"natstest.PublishStrange jetstream.PublishMsg":     {"", ""}, // of tests: messages of other producers
	"natstest.NextBlock jetstream.Publish":             {"", ""}, // of tests alone
	"tracing.newSender grpc.NewClient":                 {"", ""},
	"natshealth.observed.PublishMsg jetstream.PublishMsg": {
		"it passes the message on unchanged", "internal/natshealth.TestStorage_NoticesAServerThatStoresNothing"},
	"backup.restoring.addRefusals jetstream.PublishMsg": {
		"contextkit.InjectNATS under the platform's context, or it fails",
		"services/runner.TestBackup_CompensatedTransferDoesNotGoForward"},
	"backup.restoring.moveCursors jetstream.PublishMsg": {
		"contextkit.InjectNATS under the platform's context, or it fails",
		"cmd/headgate.TestBackup_UnderLoadRestoredElsewhereLosesAndDoublesNothing"},
	"setup.publishRetained jetstream.PublishMsg": {
		"contextkit.InjectNATS under the platform's context, or it fails",
		"internal/setup.TestRetain_MessagesCarryThePlatformsContract"},
	"tracing.sender.UploadTraces grpc.Invoke": {"", ""},
	"journal.Journal.publish jetstream.PublishMsg": {
		"its messages are made by Event.message, which injects the contract or fails",
		"services/aggregate.TestSubmit_StoresContextAndCloudEventsHeaders"},
	"journal.Journal.publish jetstreamext.PublishMsgBatch": {
		"as the line above", "services/aggregate.TestSubmit_StoresContextAndCloudEventsHeaders"},
	"deadletter.Store jetstream.PublishMsg": {
		"contextkit.InjectNATS, or it fails", "services/runner.TestWorkflow_FailedCompensationIsDeadLetter"},
	"kv.publish jetstream.PublishMsg": {
		"contextkit.InjectNATS, or it fails; what no call causes is sent under the platform's context",
		"internal/kv.TestBucket_PlatformWritesCarryTheContract"},
	"timeline.Recorder.publish jetstream.PublishMsgAsync": {
		"contextkit.InjectNATS under the call's own context, or it is counted as lost",
		"internal/timeline.TestSpan_CarriesTheContractOfItsCall"},
	"workqueue.MakeDue jetstream.PublishMsg": {
		"contextkit.InjectNATS, or it fails",
		"services/runner.TestOperations_RetrySkipCancelOrCompensateStuckInstances"},
	"runner.schedule jetstream.PublishMsg": {
		"contextkit.InjectNATS, or it fails", "services/runner.TestWait_SurvivesRestart"},
	"webhook.New net.DialContext": {"", ""},
	"webhook.Caller.post http.Do": {
		"the client's transport is contextkit.HTTPTransport",
		"services/runner/webhook.TestPost_SignsAndCarriesKeyAndContext"},
	"audit.outbox.send jetstream.PublishMsgAsync": {
		"contextkit.InjectNATS, or it fails", "gateway.TestAudit_DenialsAndOperationsAreRecorded"},
	"audit.outbox.awaitAck jetstream.PublishMsg": {
		"contextkit.InjectNATS, or it fails", "gateway.TestAudit_DenialsAndOperationsAreRecorded"},
	"fleet.publishForeign nats.PublishMsg": {
		"contextkit.InjectNATS, or it sends nothing",
		"internal/access.TestAnnounce_WithAUserOfItsOwn",
	},
	"fleet.publishEarlierKey nats.PublishMsg": {
		"contextkit.InjectNATS, or it sends nothing", "internal/fleet.TestAnnounce_BothKeysCarryTheContract"},
	"kv.Bucket.PutAsync jetstream.PublishMsgAsync": {
		"contextkit.InjectNATS, or it fails", "services/aggregate.TestIdempotency_RecordCarriesContextHeaders"},
}

func TestOutgoing_EveryCallCarriesTenantOrPlatformAndTrace(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("reads the sources, which build flags do not change")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]token.Position{}
	for _, p := range loadSources(t, root) {
		for _, file := range p.files {
			for _, decl := range file.Decls {
				ast.Inspect(decl, func(n ast.Node) bool {
					selector, ok := n.(*ast.SelectorExpr)
					if !ok {
						return true
					}
					callee, ok := p.uses[selector.Sel].(*types.Func)
					if ok && senders[callee.FullName()] {
						where := p.name + "." + owner(decl) + " " + callee.Pkg().Name() + "." + callee.Name()
						found[where] = p.positions.Position(selector.Pos())
					}
					return true
				})
			}
		}
	}
	for where, at := range found {
		if _, known := outgoing[where]; !known {
			t.Errorf(
				"%s: %s: something leaves the process here: name the function that makes it carry the contract, "+
					"and add a test",
				at, where,
			)
		}
	}
	for where, row := range outgoing {
		if _, there := found[where]; !there {
			t.Errorf("%s: no outgoing call there", where)
		}
		if row.shown == "" {
			continue
		}
		folder, test, _ := strings.Cut(row.shown, ".")
		if !hasTest(t, filepath.Join(root, folder), test) {
			t.Errorf("%s: missing test %s", where, row.shown)
		}
	}
}

// owner names the function that a declaration is.
func owner(decl ast.Decl) string {
	f, ok := decl.(*ast.FuncDecl)
	if !ok {
		return "var"
	}
	if f.Recv == nil {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	if name, ok := receiver.(*ast.Ident); ok {
		return name.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// hasTest reports whether a folder has a test of the name.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}
