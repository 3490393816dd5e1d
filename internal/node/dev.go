package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/control/ui"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/proxies"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// startTimeout bounds the start, including recovery of the store.
const startTimeout = 2 * time.Minute

// DevConfig is the configuration of a development process. The flags of 'headgate dev' document the fields.
type DevConfig struct {
	Data             string
	Model            string
	Tenants          []string
	Listen           string
	GRPCListen       string
	AdminListen      string
	AggregateListen  string
	ProjectionListen string
	ControlListen    string
	RunnerListen     string
	Origin           []string
	Proxy            []string
	Webhook          []string
	APIKeys          string
	Descriptors      []string
	Node             []string
	Reflect          bool
	LazySync         bool
	NewJournal       bool
	OTLP             string
	LogLevel         string
}

// platform is everything that runs in a development process.
type platform struct {
	config   *DevConfig
	tenants  []contextkit.TenantID
	log      zerolog.Logger
	embedded *natsserver.Embedded
	js       *bus
	issuer   *auth.Issuer

	aggregate, projection, runner, control *service
	edge                                   *edge
	followModel                            func(context.Context) error
	// sockets has the addresses of the gateway, which the runner calls and which listens last.
	sockets rpc.Sockets
}

// inProcess maps the endpoints of services that listen to their transports within the process.
type inProcess map[string]upstream.Opener

// listen binds the addresses of a service and adds its transport.
func (i inProcess) listen(ctx context.Context, s *service) error {
	if err := s.server.Listen(ctx); err != nil {
		return err
	}
	i[s.endpoint()] = s.server.InProcess(frame.GRPCCodec{})
	return nil
}

// opener returns the transport of an endpoint, nil for endpoints of other processes.
func (i inProcess) opener(endpoint string) upstream.Opener { return i[endpoint] }

// Dev runs all roles in this process, over an embedded NATS server, until ctx ends. It writes the platform's
// addresses and examples to out, and log lines to logs.
func Dev(ctx context.Context, c DevConfig, out, logs io.Writer) (err error) {
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	p := &platform{config: &c, log: zerolog.New(logs).Level(level).With().Timestamp().Logger()}
	tenants, err := rpc.ParseTenants(c.Tenants)
	if err != nil {
		return err
	}
	p.tenants = tenants.All()
	began := time.Now()
	start, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), startTimeout)
	defer cancel()
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.start(start); err != nil {
		return err
	}
	if err := p.announce(out, time.Since(began)); err != nil {
		return err
	}
	err = rpc.RunLayers(ctx, p.layers()...)
	if err == nil {
		_, err = fmt.Fprintln(out, "headgate has stopped; the data is in", c.Data)
	}
	return err
}

// layers returns the running parts in the order in which they stop: first callers of other parts, then the edge, then
// the services.
func (p *platform) layers() []rpc.Layer {
	services := []*service{p.aggregate, p.projection, p.runner, p.control}
	var announces, callers, servers, after, follows, records rpc.Layer
	for _, s := range services {
		node := newNode(s.member.kind, s.member.id, s.endpoint())
		announces = append(announces, s.announce(node))
		if s.before != nil {
			callers = append(callers, s.before)
		}
		servers = append(servers, s.server.Serve)
		if s.after != nil {
			after = append(after, s.after)
		}
		follows, records = append(follows, s.follow, s.guard), append(records, s.member.record, s.member.spans.Run)
	}
	if p.followModel != nil {
		follows = append(follows, p.followModel)
	}
	if p.config.LazySync {
		follows = append(follows, p.acceptLosses)
	}
	edge := p.edge.layers(newNode("gateway", edgeID, p.edge.gateway.Addr()))
	return append([]rpc.Layer{append(announces, callers...)}, append(edge, servers, after, follows, append(records, p.js.run()...))...)
}

// start opens and binds everything, without answering calls yet.
func (p *platform) start(ctx context.Context) error {
	if err := checkFiles(p.log, p.files()...); err != nil {
		return err
	}
	// The model first, so that nothing is changed if it has mistakes.
	if p.config.Model != "" {
		if _, err := openModel(ctx, model.File(p.config.Model)); err != nil {
			return err
		}
	}
	if err := p.startBackbone(ctx); err != nil {
		return err
	}
	rollout, follow, err := openModels(ctx, p.js, p.config.Model, p.log)
	if err != nil {
		return err
	}
	models := rollout.models
	p.followModel = follow
	if p.issuer, err = OpenDevIssuer(p.config.Data); err != nil {
		return err
	}
	listen := func(name, addr string) rpc.Config { return rpc.Config{Name: name, Addr: addr} }
	members := map[string]*member{}
	for _, kind := range []string{"aggregate", "projection", "runner", kindControl} {
		if members[kind], err = newMember(ctx, p.js, memberConfig{
			kind:    kind,
			id:      kind + "-1",
			tenants: p.tenants,
			rollout: rollout,
			tracing: p.tracing(),
		}, p.log); err != nil {
			return err
		}
	}
	gatewayAddr, err := p.bindGateway(ctx)
	if err != nil {
		return err
	}
	within := inProcess{}
	if p.aggregate, err = newAggregate(ctx, members["aggregate"], models, aggregate.Config{Synced: !p.config.LazySync}, listen("aggregate", p.config.AggregateListen)); err != nil {
		return err
	}
	if err := within.listen(ctx, p.aggregate); err != nil {
		return err
	}
	if p.projection, err = newSQLiteProjection(ctx, members["projection"], models, projection.Config{}, filepath.Join(p.config.Data, "views"), listen("projection", p.config.ProjectionListen)); err != nil {
		return err
	}
	if err := within.listen(ctx, p.projection); err != nil {
		return err
	}
	commands := &commander{pool: upstream.NewPool(upstream.PoolConfig{MaxEndpoints: 1}), gateway: gatewayAddr, credential: p.runnerToken}
	hooks := webhook.Config{Allow: p.config.Webhook, Private: true, Plain: true}
	if hooks.Secret, err = OpenDevWebhookSecret(p.config.Data); err != nil {
		return err
	}
	if p.runner, err = newRunner(ctx, members["runner"], models, runner.Config{}, commands, hooks, listen("runner", p.config.RunnerListen)); err != nil {
		return err
	}
	if err := within.listen(ctx, p.runner); err != nil {
		return err
	}
	if p.control, err = newControl(ctx, members["control"], models, p.config.Model != "", upstream.NewPool(upstream.PoolConfig{Local: within.opener}), listen("control", p.config.ControlListen)); err != nil {
		return err
	}
	if err := within.listen(ctx, p.control); err != nil {
		return err
	}
	return p.startGateway(ctx, within)
}

// edgeID is the gateway's node id.
const edgeID = "gateway-1"

// tracing returns the configuration of span export.
func (p *platform) tracing() tracing.Config { return tracing.Config{Endpoint: p.config.OTLP} }

// bindGateway binds the addresses of the gateway, and returns the one for commands of the runner.
func (p *platform) bindGateway(ctx context.Context) (commands string, err error) {
	const admin = 2
	// In the order in which the gateway's servers take them.
	for i, addr := range []string{p.config.Listen, p.config.GRPCListen, p.config.AdminListen} {
		if addr == "" {
			continue
		}
		bound, err := p.sockets.Bind(ctx, addr)
		if err != nil {
			return "", fmt.Errorf("gateway: %w", err)
		}
		if i < admin {
			commands = bound // the one for gRPC alone, if there is one
		}
	}
	return commands, nil
}

func (p *platform) startBackbone(ctx context.Context) (err error) {
	if err := format.OpenDir(p.config.Data, devFormat); err != nil {
		return err
	}
	p.embedded, err = natsserver.Start(ctx, natsserver.Config{Dir: filepath.Join(p.config.Data, "nats"), LazySync: p.config.LazySync, Log: &p.log})
	if err != nil {
		return err
	}
	conn, err := p.embedded.Connect("headgate-dev")
	if err != nil {
		return err
	}
	if p.js, err = openBus(conn, p.embedded, p.log); err != nil {
		return err
	}
	if err := ensureStreams(ctx, p.js, 1, p.log, streamOptions(p.config.NewJournal, filepath.Join(p.config.Data, "views"))...); err != nil {
		return err
	}
	if p.config.LazySync {
		return p.acceptLazily(ctx)
	}
	return nil
}

// acceptAgain is the delay before accepting a loss is retried.
const acceptAgain = 5 * time.Second

// acceptLazily accepts the loss of events by a power failure, if writes of the journal are not synced.
func (p *platform) acceptLazily(ctx context.Context) error {
	eventLog, err := journal.Open(ctx, p.js)
	if err != nil {
		return err
	}
	if damage := eventLog.Integrity().Damage(); damage == nil || damage.End == nil {
		return nil
	}
	loss, err := journal.AcceptLoss(ctx, p.js, "", "writes are not synced (--lazy-sync)")
	if err == nil {
		p.log.Warn().Any("loss", loss).Msg("the journal has lost events, which --lazy-sync accepts; rebuilding the views")
	}
	return err
}

// acceptLosses accepts, until ctx ends, losses of an unsynced journal that views prove: the record of the journal's
// end is on the same disk, and may have gone back together with it.
func (p *platform) acceptLosses(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	integrity := p.projection.integrity
	for {
		changed := integrity.Changed()
		var again <-chan time.Time
		if damage := integrity.Damage(); damage != nil && damage.End != nil {
			if err := p.acceptLazily(ctx); err != nil && ctx.Err() == nil {
				p.log.Warn().Err(err).Dur("again_in_ms", acceptAgain).Msg("accepting a loss of the journal failed, retrying")
				again = time.After(acceptAgain)
			}
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// streamOptions returns the options of the streams for a role with a directory of views, or "".
func streamOptions(newJournal bool, views string) []setup.Option {
	options := []setup.Option{setup.Beside(views)}
	if newJournal {
		options = append(options, setup.NewJournal)
	}
	return options
}

func (p *platform) startGateway(ctx context.Context, within inProcess) error {
	routes := route.NewTable()
	nodes := []route.Node{
		{ID: "aggregate-1", Kind: "aggregate", Endpoint: p.aggregate.endpoint(), Ready: true},
		{ID: "projection-1", Kind: "projection", Endpoint: p.projection.endpoint(), Ready: true},
		{ID: "runner-1", Kind: "runner", Endpoint: p.runner.endpoint(), Ready: true},
		{ID: "control-1", Kind: "control", Endpoint: p.control.endpoint(), Ready: true},
	}
	var further []nodeSettings
	for i, text := range p.config.Node {
		kind, endpoint, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--node %q: want KIND=HOST:PORT", text)
		}
		id := fmt.Sprintf("%s-extra-%d", kind, i+1)
		nodes = append(nodes, route.Node{ID: id, Kind: kind, Endpoint: endpoint, Ready: true})
		further = append(further, nodeSettings{ID: id, Kind: kind, Endpoint: endpoint, Reflect: p.config.Reflect})
	}
	if err := routes.Replace(nodes, nil); err != nil {
		return err
	}
	accepted, err := p.auth(ctx)
	if err != nil {
		return err
	}
	sets, err := descriptorSets(p.config.Descriptors)
	if err != nil {
		return err
	}
	trusted, err := proxies.New(proxies.Config{Trusted: p.config.Proxy})
	if err != nil {
		return err
	}
	var origins []gateway.Origin
	for _, origin := range p.config.Origin {
		origins = append(origins, gateway.Origin{Origin: origin})
	}
	p.edge, err = openEdge(ctx, p.js, edgeConfig{
		gateway: gateway.Config{
			Listen: rpc.Config{Name: "gateway", Addr: p.config.Listen, GRPC: p.config.GRPCListen, Proxies: trusted, Sockets: &p.sockets}, Admin: p.config.AdminListen,
			Auth: accepted, Platform: []string{runnerSubject}, Origins: origins,
			UI: ui.Handler(), Upstream: upstream.PoolConfig{Local: within.opener},
		},
		id: edgeID, tracing: p.tracing(), descriptors: sets, routes: routes, nodes: further,
	}, p.log)
	return err
}

// auth returns the accepted credentials.
func (p *platform) auth(ctx context.Context) (auth.Config, error) {
	accepted, err := p.issuer.Config(ctx)
	if err != nil {
		return auth.Config{}, err
	}
	if path := p.config.APIKeys; path != "" {
		if accepted.APIKeys, err = auth.OpenAPIKeys(ctx, auth.File(path)); err != nil {
			return auth.Config{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	return accepted, nil
}

// close releases what start opened, in reverse.
func (p *platform) close() error {
	errs := []error{p.sockets.Close()} // those that no server uses
	for _, s := range []*service{p.control, p.runner, p.projection, p.aggregate} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if p.js != nil {
		p.js.Conn().Close()
	}
	if p.embedded != nil {
		p.embedded.Close()
	}
	return errors.Join(errs...)
}

// runnerTokenTTL is the lifetime of the runner's tokens: one is issued for each command, which costs less than the
// command's append.
const runnerTokenTTL = time.Minute

// runnerSubject names the runner's principal.
const runnerSubject = "runner"

// runnerToken returns a token for the runner's next command.
func (p *platform) runnerToken() (string, error) {
	principal, err := auth.NewPrincipal(runnerSubject, []string{"*"}, []string{"command.submit", auth.ActionInternal})
	if err != nil {
		return "", err
	}
	return p.issuer.Issue(principal, runnerTokenTTL)
}
