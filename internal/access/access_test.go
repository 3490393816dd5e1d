package access_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// installation is a NATS server that is configured by the files of 'nats-config', with its streams.
type installation struct {
	dir string
	url string
}

// install starts a server with the users of nodes, and sets the streams up.
func install(t *testing.T, nodes ...string) *installation {
	t.Helper()
	dir := t.TempDir()
	if err := access.Write(access.Config{
		Dir:    dir,
		Nodes:  nodes,
		Listen: "127.0.0.1:-1",
		Store:  filepath.Join(dir, "store"),
	}, io.Discard); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{dir: dir, url: natstest.Server(t, options).ClientURL()}
	owner := i.connect(t, "setup")
	if err := setup.Ensure(t.Context(), owner.js, 1); err != nil {
		t.Fatal(err)
	}
	if err := kv.EnsureSecrets(t.Context(), owner.js); err != nil {
		t.Fatal(err)
	}
	return i
}

// user is a connection of a user.
type user struct {
	js      jetstream.JetStream
	key     string
	refused chan string // what the server refuses, in order
}

// connect connects as a user.
func (i *installation) connect(t *testing.T, name string) *user {
	t.Helper()
	option, err := nats.NkeyOptionFromSeed(filepath.Join(i.dir, "nkeys", name+".nk"))
	if err != nil {
		t.Fatal(err)
	}
	var options nats.Options
	if err := option(&options); err != nil {
		t.Fatal(err)
	}
	u := &user{key: options.Nkey, refused: make(chan string, 4096)}
	conn, err := natsclient.Connect(i.url, name, option, nats.CustomInboxPrefix(access.InboxPrefix(u.key)),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { u.refused <- err.Error() }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if u.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	return u
}

// refusals returns the subjects that the server has refused the user since the last call.
func (u *user) refusals(t *testing.T) map[string]bool {
	t.Helper()
	const last = "nobody.may.publish.this" // the server's errors come in the order of the requests
	if err := u.js.Conn().Publish(last, nil); err != nil {
		t.Fatal(err)
	}
	subjects := map[string]bool{}
	for {
		_, subject, _ := strings.Cut(natstest.Await(t, u.refused, "the refusal"), "to \"")
		subject, _, _ = strings.Cut(subject, "\"")
		if subject == last {
			return subjects
		}
		subjects[subject] = true
	}
}

// platform are the nodes of the tests.
var platform = []string{
	"gateway=gateway-1", "aggregate=aggregate-1", "projection=views-1", "projection=views-2", "runner=runner-1",
	"control=control-1", "thing=thing-1",
}

// Each subject is refused to all users except the named ones.
func TestPermissions_EverythingElseIsRefused(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	users := map[string]*user{}
	for _, name := range []string{
		"gateway-1", "aggregate-1", "views-1", "views-2", "runner-1", "control-1", "thing-1", "backup",
	} {
		users[name] = i.connect(t, name)
	}
	nodes := []string{"gateway-1", "aggregate-1", "views-1", "views-2", "runner-1", "control-1", "thing-1"}
	type attack struct {
		subject string
		may     []string
	}
	attacks := []attack{
		{"audit.acme.operator", []string{"gateway-1"}}, {"audit._platform.denied", []string{"gateway-1"}},
		{"audit.acme", nil},
		{"audit.acme.direct", []string{"aggregate-1", "views-1", "views-2", "runner-1", "control-1"}},
		{"audit.acme.other", nil},
		{"events.acme.wallet.ada", []string{"aggregate-1"}},
		{"work.acme.transfer.1", []string{"runner-1"}}, {"later.acme.transfer.1", []string{"runner-1"}},
		{"deadletters.acme", []string{"runner-1"}},
		{"$KV.secrets.tokens", nil}, {"$KV.secrets.other", nil},
		{"$JS.API.STREAM.MSG.GET.KV_secrets", []string{"backup"}},
		{"$JS.API.DIRECT.GET.KV_secrets", []string{"backup"}},
		{"$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.other", []string{"backup"}},
		{
			"$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.tokens",
			[]string{"aggregate-1", "views-1", "views-2", "runner-1", "control-1", "backup"},
		},
		{"$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.tickets", []string{"gateway-1", "backup"}},
		{"$JS.API.STREAM.INFO.KV_secrets", []string{"backup"}},
		{"$JS.API.CONSUMER.NAMES.EVENTS", []string{"runner-1", "backup"}},
		{"$JS.API.CONSUMER.LIST.EVENTS", []string{"runner-1", "backup"}},
		{"$JS.API.CONSUMER.NAMES.AUDIT", []string{"backup"}}, {"$JS.API.CONSUMER.LIST.KV_tenants", []string{"backup"}},
		{"$JS.API.CONSUMER.PAUSE.EVENTS.x", nil}, {"$JS.API.CONSUMER.LEADER.STEPDOWN.EVENTS.x", nil},
		{"$JS.API.CONSUMER.CREATE.KV_secrets.spy.$KV.secrets.>", []string{"backup"}},
		{"$JS.API.CONSUMER.DURABLE.CREATE.KV_secrets.spy", nil}, {"$JS.API.CONSUMER.CREATE.KV_secrets", nil},
		{"$KV.placement.projection.acme", []string{"control-1"}}, {"$KV.tenants.acme", []string{"control-1"}},
		{"$KV.models.model", []string{"control-1"}}, {"$KV.drains.gateway.gateway-1", []string{"control-1"}},
		{"$KV.rebalances.1", []string{"control-1"}}, {"$KV.skips.acme.a.1", []string{"control-1"}},
		{"$KV.nonevents.acme.1", []string{"control-1"}},
		{"$KV.revocations.1", []string{"control-1"}}, {"$KV.apikeys.c.1", []string{"control-1"}},
		{
			"$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.credentials",
			[]string{"gateway-1", "control-1", "backup"},
		},
		{"$JS.API.STREAM.MSG.GET.KV_apikeys", []string{"gateway-1", "control-1", "backup"}},
		{"$JS.API.DIRECT.GET.KV_apikeys", []string{"gateway-1", "control-1", "backup"}},
		{"$JS.API.STREAM.MSG.GET.KV_revocations", []string{"gateway-1", "control-1", "backup"}},
		{"$JS.API.CONSUMER.CREATE.KV_apikeys.x.$KV.apikeys.>", []string{"gateway-1", "control-1", "backup"}},
		{"$JS.API.CONSUMER.CREATE.KV_revocations.x.$KV.revocations.>", []string{"gateway-1", "control-1", "backup"}},
		{"$KV.idempotency.acme.wallet.ada.0", []string{"aggregate-1"}},
		{"$KV.snapshots.acme.wallet.ada", []string{"aggregate-1"}}, {"$KV.usage.acme", []string{"aggregate-1"}},
		{"$KV.instances.acme.transfer.1", []string{"runner-1"}}, {"$KV.cursors.acme", []string{"runner-1"}},
		{"$KV.leases.runner.1", []string{"runner-1"}},
		{"$KV.nodes.gateway.gateway-1", []string{"gateway-1"}}, {"$KV.nodes.gateway-1", nil},
		{"$KV.nodes.projection.views-1", []string{"views-1"}}, {"$KV.nodes.projection.views-2", []string{"views-2"}},
		{"$KV.nodes.control.views-1", nil},
		{"$KV.nodes.control.control-1", []string{"control-1"}}, {"$KV.nodes.thing.thing-1", nil},
		{"nodes.thing.thing-1", []string{"thing-1"}}, {"nodes.thing.thing-2", nil}, {"nodes.gateway.gateway-1", nil},
		{"$KV.served.7.views-1", []string{"views-1"}}, {"$KV.served.7.views-2", []string{"views-2"}},
		{"$KV.served.7.other", nil},
		{"$JS.API.STREAM.PURGE.WORK", []string{"runner-1"}}, {"$JS.API.STREAM.MSG.DELETE.WORK", []string{"runner-1"}},
		{"$JS.API.STREAM.MSG.DELETE.DEADLETTERS", []string{"runner-1"}},
		{"$JS.API.STREAM.MSG.GET.AUDIT", []string{"control-1", "backup"}},
		{"$JS.API.CONSUMER.CREATE.AUDIT.spy.audit.>", []string{"control-1", "backup"}},
		{
			"$JS.API.STREAM.MSG.GET.EVENTS",
			[]string{"aggregate-1", "views-1", "views-2", "runner-1", "control-1", "backup"},
		},
		{
			"$JS.API.STREAM.INFO.EVENTS",
			[]string{"gateway-1", "aggregate-1", "views-1", "views-2", "runner-1", "control-1", "backup"},
		},
		{"$SYS.REQ.SERVER.PING", nil}, {"restoring", nil}, {"anything", nil}, {"_INBOX.x", nil}, {"_R_.x", nil},
	}
	for _, stream := range setup.StreamNames() {
		for _, verb := range []string{
			"CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.DELETE", "LEADER.STEPDOWN",
			"PEER.REMOVE",
		} {
			subject := "$JS.API.STREAM." + verb + "." + stream
			if !slices.ContainsFunc(attacks, func(a attack) bool { return a.subject == subject }) {
				attacks = append(attacks, attack{subject, nil})
			}
		}
	}
	for _, name := range append(nodes, "backup") {
		u := users[name]
		for _, a := range attacks {
			if !slices.Contains(a.may, name) {
				if err := u.js.Conn().Publish(a.subject, []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
		}
		refused := u.refusals(t)
		for _, a := range attacks {
			if may := slices.Contains(a.may, name); !may && !refused[a.subject] {
				t.Errorf("%s may publish to %s", name, a.subject)
			}
		}
		for _, subject := range []string{
			">", "_INBOX.>", "_INBOX_>", "*.>", access.InboxPrefix(users["control-1"].key) + ".>", "events.>",
			"audit.>", "$KV.>", "$KV.secrets.>", "$JS.API.>", "$SYS.>", "$JS.EVENT.>",
		} {
			if name == "control-1" && strings.HasPrefix(subject, "_INBOX_U") {
				continue
			}
			sub, err := u.js.Conn().SubscribeSync(subject)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sub.Unsubscribe() }()
			if !u.refusals(t)[subject] {
				t.Errorf("%s may subscribe to %s", name, subject)
			}
		}
	}
	// The named users are admitted.
	for _, a := range attacks {
		for _, name := range a.may {
			if err := users[name].js.Conn().Publish(a.subject, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if users[name].refusals(t)[a.subject] {
				t.Errorf("%s may not publish to %s", name, a.subject)
			}
		}
	}
}

// A user that may write one key of a bucket cannot remove the others by a rollup.
func TestPermissions_ARollupRemovesNoOtherKeys(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	ctx := contextkit.PlatformContext(t.Context())
	owner := i.connect(t, "setup")
	for _, stream := range streams.Names() {
		kept, err := owner.js.Stream(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		if kept.CachedInfo().Config.AllowRollup &&
			stream != streams.Work { // runners alone write to WORK, and may empty it
			t.Errorf("%s accepts rollups", stream)
		}
	}
	if _, err := i.connect(t, "control-1").js.Publish(ctx, "$KV.nodes.control.control-1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	msg := nats.NewMsg("$KV.nodes.runner.runner-1")
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupAll)
	answer, err := i.connect(t, "runner-1").js.Conn().RequestMsgWithContext(ctx, msg)
	if err != nil || !strings.Contains(string(answer.Data), "rollup not permitted") {
		t.Errorf("%s, %v", answer.Data, err)
	}
	if _, err := kv.Read(ctx, owner.js, streams.BucketNodes, "control.control-1"); err != nil {
		t.Error(err)
	}
}

// NATS does not check the reply subject to which it acknowledges a message: an acknowledgement that a
// user directs to another key is not read as a value. As one, it would end the suspension of a tenant,
// and be a known secret.
func TestPermissions_AcknowledgementsDirectedToKeysAreNoValues(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	ctx := contextkit.PlatformContext(t.Context())
	control, runner := i.connect(t, "control-1"), i.connect(t, "runner-1")
	tenants, err := kv.Open[fleet.Tenant](ctx, control.js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tenants.Put(ctx, "acme", fleet.Tenant{Suspended: true}, 0); err != nil {
		t.Fatal(err)
	}
	states := make(chan bool, 16)
	following, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tenants.Follow(following, func(all map[string]kv.Entry[fleet.Tenant]) {
			select {
			case states <- all["acme"].Value.Suspended:
			case <-following.Done():
			}
		}, func(error) {})
	}()
	t.Cleanup(func() { stop(); <-ended })
	if !natstest.Await(t, states, "the tenant is known") {
		t.Fatal("the tenant is not suspended")
	}
	// At a sequence of four digits the acknowledgement is as long as a secret.
	for range 1000 {
		if err := runner.js.Conn().Publish("$KV.nodes.runner.runner-1", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"$KV.tenants.acme", "$KV.secrets.tokens"} {
		if err := runner.js.Conn().PublishRequest("$KV.nodes.runner.runner-1", subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	runner.refusals(t)
	owner := i.connect(t, "setup")
	for !answered(ctx, t, owner.js, streams.BucketTenants, "acme") ||
		!answered(ctx, t, owner.js, streams.BucketSecrets, kv.SecretTokens) {
	}
	if _, err := tenants.Put(ctx, "globex", fleet.Tenant{}, 0); err != nil {
		t.Fatal(err)
	}
	if !natstest.Await(t, states, "change after the first state") {
		t.Error("the tenant is no longer suspended")
	}
	if kept, err := tenants.Get(ctx, "acme"); err == nil {
		t.Errorf("%+v is read", kept)
	}
	if _, err := kv.SharedSecret(ctx, control.js, kv.SecretTokens); err == nil ||
		!strings.Contains(err.Error(), "is damaged") {
		t.Errorf("the secret is accepted: %v", err)
	}
}

// The user of a foreign node has the server write nothing: no stream has the subject that it may publish to, so that
// nothing answers it, at any reply subject.
func TestPermissions_ForeignNodesHaveTheServerWriteNothing(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	ctx := contextkit.PlatformContext(t.Context())
	permissions, err := access.Of(access.User{
		Role: access.Foreign,
		Kind: "thing",
		ID:   "thing-1",
		Key:  "U",
	})
	if err != nil || !slices.Equal(permissions.Publish, []string{"nodes.thing.thing-1"}) {
		t.Fatalf("%v, %v", permissions, err)
	}
	all, err := access.Of(access.User{
		Role: access.Foreign,
		Kind: "thing",
		ID:   access.AnyID,
		Key:  "U",
	})
	if err != nil || !slices.Equal(all.Publish, []string{"nodes.thing.>"}) {
		t.Fatalf("%v, %v", all, err)
	}
	owner, thing := i.connect(t, "setup"), i.connect(t, "thing-1")
	before := map[string]uint64{}
	for _, name := range streams.Names() {
		stream, err := owner.js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, subject := range stream.CachedInfo().Config.Subjects {
			if strings.HasPrefix(subject, "nodes.") || subject == ">" {
				t.Errorf("%s stores %s", name, subject)
			}
		}
		before[name] = stream.CachedInfo().State.LastSeq
	}
	for _, reply := range []string{
		"$KV.tenants.acme", "$KV.secrets.tokens", "events.acme.wallet.ada", "audit._platform.operator",
		"work.acme.transfer.1",
	} {
		if err := thing.js.Conn().PublishRequest(permissions.Publish[0], reply, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if refused := thing.refusals(t); len(refused) > 0 {
		t.Errorf("rejected: %v", refused)
	}
	for name, last := range before {
		stream, err := owner.js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if stored := stream.CachedInfo().State.LastSeq; stored != last {
			t.Errorf("%d messages are stored in %s", stored-last, name)
		}
	}
}

// A message that a user has stored under its own key, and has the server publish to a subject of the
// journal as the answer to a request, is no event.
func TestEvents_AnswersDirectedToTheJournalAreNoEvents(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	ctx := contextkit.PlatformContext(t.Context())
	gateway, owner := i.connect(t, "gateway-1"), i.connect(t, "setup")
	forged := nats.NewMsg("$KV.nodes.gateway.gateway-1")
	forged.Header = nats.Header{
		"ce-type": {"opened"}, "ce-aggregateversion": {"1"}, "ce-aggregatetype": {"wallet"}, "ce-aggregateid": {"ada"},
		"tenant-id": {"acme"},
	}
	forged.Data = []byte(`{"owner":"Mallory"}`)
	if _, err := gateway.js.PublishMsg(ctx, forged); err != nil {
		t.Fatal(err)
	}
	if err := gateway.js.Conn().PublishRequest(
		"$JS.API.DIRECT.GET.KV_nodes."+forged.Subject, "events.acme.wallet.ada", nil,
	); err != nil {
		t.Fatal(err)
	}
	stream, err := owner.js.Stream(ctx, streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	var stored *jetstream.RawStreamMsg
	for stored == nil {
		if stored, err = stream.GetLastMsgForSubject(ctx, "events.acme.wallet.ada"); err != nil &&
			!errors.Is(err, jetstream.ErrMsgNotFound) {
			t.Fatal(err)
		}
	}
	event, err := journal.ReadEvent(journal.RawMessage(stored))
	if unreadable := new(journal.UnreadableError); !errors.As(err, &unreadable) ||
		unreadable.Fault != journal.FaultSubject {
		t.Errorf("%+v, %v", event, err)
	}
}

// answered reports whether the value of a key is an acknowledgement.
func answered(ctx context.Context, t *testing.T, js jetstream.JetStream, bucket, key string) bool {
	t.Helper()
	kept, err := kv.Read(ctx, js, bucket, key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(string(kept.Value), `{"stream":"KV_nodes"`)
}

// Records of AUDIT are not removed before they expire, not by the set-up user either.
func TestSetup_CannotRemoveRecordsOfAudit(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	owner := i.connect(t, "setup")
	ctx := contextkit.PlatformContext(t.Context())
	ack, err := i.connect(t, "gateway-1").js.Publish(ctx, auditlog.Subject("acme", auditlog.ClassDenied), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := owner.js.Stream(ctx, streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(ctx); err == nil {
		t.Error("the record is purged")
	}
	if err := stream.DeleteMsg(ctx, ack.Sequence); err == nil {
		t.Error("a record is deleted")
	}
	config := stream.CachedInfo().Config
	config.DenyPurge, config.DenyDelete = false, false
	if _, err := owner.js.UpdateStream(ctx, config); err == nil {
		t.Error("the protection is removed")
	}
	if err := setup.Ensure(ctx, owner.js, 1); err != nil {
		t.Errorf("the streams are not set up again: %v", err)
	}
}

// Nodes announce themselves and see each other with no more than their permissions.
func TestAnnounce_WithAUserOfItsOwn(t *testing.T) {
	t.Parallel()
	i := install(t, append(slices.Clone(platform), "thing=thing-2")...)
	gateway, views, thing := i.connect(t, "gateway-1"), i.connect(t, "views-1"), i.connect(t, "thing-1")
	fleets := make(chan fleet.Fleet, 256)
	run := func(do func() error) {
		done := make(chan error, 1)
		go func() { done <- do() }()
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	ctx := t.Context()
	run(func() error {
		fleet.FollowNodes(ctx, gateway.js, fleet.Follower{Tenants: false, Each: func(f fleet.Fleet) {
			select {
			case fleets <- f:
			case <-ctx.Done():
			}
		}})
		return nil
	})
	run(func() error {
		return fleet.Announce(ctx, views.js, fleet.Node{
			ID:       "views-1",
			Kind:     contextkit.KindProjection,
			Endpoint: "127.0.0.1:1",
			Tenants:  []string{"acme"},
			Started:  time.Now(),
		}, func(context.Context, *fleet.Node) error { return nil })
	})
	thing2 := i.connect(t, "thing-2")
	run(func() error {
		return fleet.Announce(ctx, thing2.js, fleet.Node{
			ID:       "thing-2",
			Kind:     "thing",
			Endpoint: "127.0.0.1:4",
			Tenants:  []string{"acme"},
			Started:  time.Now(),
		}, func(context.Context, *fleet.Node) error { return nil })
	})
	has := func(id string) func(fleet.Node) bool { return func(n fleet.Node) bool { return n.ID == id } }
	for !slices.ContainsFunc(natstest.Await(t, fleets, "nodes of both sorts are followed").Nodes, has("thing-2")) {
	}
	// What a user may publish names its own kind and id, also where the content names others.
	for _, text := range []string{
		`{"id":"control-1","kind":"control","endpoint":"127.0.0.1:2","ready":true}`,
		`{"id":"thing-1","kind":"control","endpoint":"127.0.0.1:2","ready":true}`,
		`{"id":"thing.thing-1","kind":"control","endpoint":"127.0.0.1:2","ready":true}`,
		`{"id":"views-1","kind":"thing","endpoint":"127.0.0.1:2","ready":true}`,
		`{"id":"thing-1","kind":"thing","endpoint":"127.0.0.1:3","ready":true}`,
	} {
		if err := thing.js.Conn().Publish(
			fleet.ForeignSubject("thing", "thing-1"), []byte(text),
		); err != nil {
			t.Fatal(err)
		}
	}
	for {
		fleet := natstest.Await(t, fleets, "the nodes are announced")
		for _, node := range fleet.Nodes {
			if want := map[string]string{
				"views-1": "projection 127.0.0.1:1", "thing-1": "thing 127.0.0.1:3", "thing-2": "thing 127.0.0.1:4",
			}[node.ID]; node.Kind.String()+" "+node.Endpoint != want {
				t.Fatalf("%+v is accepted", node)
			}
		}
		if len(fleet.Nodes) == 3 {
			break
		}
	}
	for name, u := range map[string]*user{"gateway-1": gateway, "views-1": views, "thing-1": thing, "thing-2": thing2} {
		if refused := u.refusals(t); len(refused) > 0 {
			t.Errorf("%s rejected: %v", name, refused)
		}
	}
}

// A connection that lacks the permission for a secret, or whose streams are not set up, gets an error that names it.
func TestCheckStreams_NamesMissingSetup(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	owner, views := i.connect(t, "setup"), i.connect(t, "views-1")
	if outdated, err := setup.Check(t.Context(), views.js, 1); err != nil || len(outdated) > 0 {
		t.Errorf("%v, %v", outdated, err)
	}
	if secret, err := kv.SharedSecret(t.Context(), views.js, kv.SecretTokens); err != nil || len(secret) == 0 {
		t.Error(err)
	}
	if err := owner.js.DeleteStream(t.Context(), streams.BucketStream(streams.BucketSkips)); err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Check(t.Context(), views.js, 1); !errors.Is(err, streams.ErrNotSetUp) ||
		!strings.Contains(err.Error(), "KV_skips is missing") {
		t.Errorf("%v", err)
	}
	if outdated, err := setup.Check(t.Context(), owner.js, 3); err == nil || len(outdated) > 0 {
		t.Errorf("%v, %v", outdated, err)
	}
}

// The configuration for three servers is one of a cluster that asks its members for a password, and
// seeds stay in use.
func TestWrite_ClusterOfThree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := access.Config{
		Dir:     dir,
		Servers: []string{"nats-0.nats", "nats-1.nats", "nats-2.nats"},
		Listen:  "0.0.0.0:4222",
		Monitor: "0.0.0.0:8222",
		Store:   filepath.Join(dir, "store"),
	}
	var seeds []string
	for range 2 {
		if err := access.Write(config, io.Discard); err != nil {
			t.Fatal(err)
		}
		options, err := server.ProcessConfigFile(filepath.Join(dir, "nats-2.conf"))
		if err != nil {
			t.Fatal(err)
		}
		if options.ServerName != "nats-1.nats" || options.Cluster.Password == "" || len(options.Routes) != 3 ||
			len(options.Nkeys) != 7 || options.NoAuthUser != "" {
			t.Errorf("%+v", options)
		}
		seed, err := os.ReadFile(filepath.Join(dir, "nkeys", "gateway.nk"))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "nkeys", "gateway.nk"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		seeds = append(seeds, string(seed))
		config.Nodes = []string{"gateway=*", "aggregate=*", "projection=*", "runner=*", "thing=*"}
	}
	if seeds[0] != seeds[1] {
		t.Error("a seed is replaced")
	}
}

func TestWrite_RefusesNodesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, nodes := range [][]string{
		{"gateway"},
		{"gateway="},
		{"a b=c"},
		{"gateway=a.>"},
		{"gateway=>"},
		{"gateway=a", "aggregate=a"},
		{"gateway=setup"},
		{"*=a"},
		{"a.b=c"},
	} {
		if err := access.Write(access.Config{Nodes: nodes}, io.Discard); err == nil {
			t.Errorf("%v is accepted", nodes)
		}
	}
}

// NATS does not check where the server publishes an answer, nor where a consumer delivers: what a role
// directs to AUDIT in this way is not read as a record.
func TestAuditRecords_AnswersDirectedToAuditAreNoRecords(t *testing.T) {
	t.Parallel()
	i := install(t, platform...)
	runner, control := i.connect(t, "runner-1"), i.connect(t, "control-1")
	ctx := contextkit.PlatformContext(t.Context())
	subject := auditlog.Subject("acme", auditlog.ClassOperator)
	forged := []byte(`{"decision":"allowed","principal":"forged","procedure":"/x/Y"}`)
	if _, err := runner.js.Publish(ctx, "$KV."+streams.BucketRunner+".x", forged); err != nil {
		t.Fatal(err)
	}
	stream := streams.BucketStream(streams.BucketRunner)
	for request, body := range map[string]string{
		"$JS.API.DIRECT.GET." + stream + ".$KV." + streams.BucketRunner + ".x": "",
		"$JS.API.DIRECT.GET." +
			stream: `{"last_by_subj":"$KV.` + streams.BucketRunner + `.x"}`,
		"$JS.API.STREAM.MSG.GET." +
			stream: `{"last_by_subj":"$KV.` + streams.BucketRunner + `.x"}`,
		"$JS.API.STREAM.INFO." + stream: "",
		"$JS.API.CONSUMER.CREATE." + stream + ".spy." + "$KV." + streams.BucketRunner +
			".x": `{"stream_name":"` + stream + `","config":{"name":"spy","deliver_subject":"` + subject +
			`","deliver_policy":"all","ack_policy":"none","filter_subject":"$KV.` + streams.BucketRunner + `.x"}}`,
		"$JS.API.CONSUMER.CREATE." + stream + ".pull." + "$KV." + streams.BucketRunner +
			".x": `{"stream_name":"` + stream +
			`","config":{"name":"pull","deliver_policy":"all","ack_policy":"explicit","filter_subject":"$KV.` +
			streams.BucketRunner + `.x"}}`,
	} {
		reply := subject
		if strings.Contains(request, "CONSUMER.CREATE") {
			reply = runner.js.Conn().NewInbox()
		}
		if err := runner.js.Conn().PublishRequest(request, reply, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	runner.refusals(t)
	if err := runner.js.Conn().PublishRequest(
		"$JS.API.CONSUMER.MSG.NEXT."+stream+".pull", subject, []byte(`{"batch":1}`),
	); err != nil {
		t.Fatal(err)
	}
	runner.refusals(t)
	// A record of the gateway comes after them.
	if _, err := i.connect(t, "gateway-1").js.Publish(
		ctx, subject, []byte(`{"decision":"denied","principal":"real","procedure":"/x/Y"}`),
	); err != nil {
		t.Fatal(err)
	}
	var principals []string
	if _, err := auditlog.Read(ctx, control.js, "acme", 0, func(record auditlog.Record, _ time.Time) bool {
		principals = append(principals, record.Principal)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(principals, []string{"real"}) {
		t.Errorf("records of %q", principals)
	}
	info, err := control.js.Stream(ctx, streams.Audit)
	if err == nil {
		t.Log(info.CachedInfo().State.Msgs, "messages are stored")
	}
}
