package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/runner"
)

// startTimeout bounds the start, including recovery of the store.
const startTimeout = 2 * time.Minute

// DevConfig is the configuration of a development process. The flags of 'headgate dev' document the fields. Fields that
// are empty leave the settings of the file, or dev's defaults, unchanged.
type DevConfig struct {
	Config           string
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
	settings *settings
	tenants  []contextkit.TenantID
	log      zerolog.Logger
	embedded *natsserver.Embedded
	js       *bus
	issuer   *auth.Issuer

	aggregate, projection, runner, control *service
	edge                                   *edge
	followModel                            func(context.Context) error
	models                                 *model.Registry
	wallet                                 string // the demo model
	// sockets has the addresses of the gateway, which the runner calls and which listens last.
	sockets rpc.Sockets
}

// Dev runs all roles in this process, over an embedded NATS server, until ctx ends. It writes the platform's
// addresses and examples to out, and log lines to logs.
func Dev(ctx context.Context, c DevConfig, out, logs io.Writer) (err error) {
	p, err := newPlatform(contextkit.PlatformContext(ctx), &c, logs)
	if err != nil {
		return err
	}
	p.log.Info().Stringer("fast_paths", p.settings.FastPaths).Msg("the platform starts")
	defer p.settings.FastPaths.Collect()()
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

// newPlatform returns a platform whose settings have been checked. It writes log lines to logs.
func newPlatform(ctx context.Context, c *DevConfig, logs io.Writer) (*platform, error) {
	s, err := devSettings(ctx, c)
	if err != nil {
		return nil, err
	}
	tenants, err := s.served()
	if err != nil {
		return nil, err
	}
	level, err := zerolog.ParseLevel(s.Log)
	if err != nil {
		return nil, err
	}
	return &platform{
		config:   c,
		settings: s,
		tenants:  tenants,
		log:      zerolog.New(logs).Level(level).With().Timestamp().Logger(),
	}, nil
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
		follows, records = append(follows, s.follow, s.guard), append(records, s.member.record, s.member.spans.Run,
			s.direct.recorder.Run)
	}
	if p.followModel != nil {
		follows = append(follows, p.followModel)
	}
	if p.config.LazySync {
		follows = append(follows, p.acceptLosses)
	}
	edge := p.edge.layers(newNode(contextkit.KindGateway, edgeID, p.edge.gateway.Addr()))
	return append([]rpc.Layer{append(announces, callers...)},
		append(edge, servers, after, follows, append(records, p.js.run()...))...)
}

// start opens and binds everything, without answering calls yet.
func (p *platform) start(ctx context.Context) error {
	if err := checkFiles(p.log, p.files()...); err != nil {
		return err
	}
	// The model first, so that nothing is changed if it has mistakes.
	if _, err := openModel(ctx, p.settings.source()); err != nil {
		return err
	}
	if err := p.startNATS(ctx); err != nil {
		return err
	}
	rollout, follow, err := openModels(ctx, p.js, p.settings.Model, p.log)
	if err != nil {
		return err
	}
	p.models, p.followModel = rollout.models, follow
	_, demo, err := model.Wallet(ctx)
	if err != nil {
		return err
	}
	p.wallet = string(demo)
	if p.issuer, err = OpenDevIssuer(p.config.Data); err != nil {
		return err
	}
	gatewayAddr, err := p.bindGateway(ctx)
	if err != nil {
		return err
	}
	within := inProcess{}
	for _, kind := range devKinds {
		if err := p.startService(ctx, kind, rollout, gatewayAddr, within); err != nil {
			return err
		}
	}
	return p.startGateway(ctx, within)
}

// startService creates the service of a kind, binds its addresses and adds it to within. The runner sends its commands
// to gatewayAddr.
func (p *platform) startService(
	ctx context.Context, kind contextkit.Kind, rollout *rollout, gatewayAddr string, within inProcess,
) error {
	section := p.settings.service(kind)
	listen, err := section.listen(kind, p.log)
	if err != nil {
		return config.Inside(kind.String(), err)
	}
	listen.Admin, listen.LocalHosts = section.Admin, true
	m, err := newMember(ctx, p.js, memberConfig{
		kind:    kind,
		id:      devID(kind),
		tenants: p.tenants,
		rollout: rollout,
		tracing: p.settings.Tracing,
	}, p.log)
	if err != nil {
		return err
	}
	var s *service
	switch models := rollout.models; kind {
	case contextkit.KindAggregate:
		s, err = newAggregate(ctx, m, models, p.settings.Aggregate.config(!p.config.LazySync), listen)
		p.aggregate = s
	case contextkit.KindProjection:
		s, err = newSQLiteProjection(ctx, m, models, projection.Config{Answers: p.settings.Projection.Answers},
			p.views(), listen)
		p.projection = s
	case contextkit.KindRunner:
		s, err = p.newRunner(ctx, m, models, gatewayAddr, listen)
		p.runner = s
	case contextkit.KindControl:
		s, err = p.newControl(ctx, m, models, within, listen)
		p.control = s
	}
	if err != nil {
		return err
	}
	return within.listen(ctx, s)
}

// newRunner returns the runner, whose commands go to the gateway at gatewayAddr with tokens of the process.
func (p *platform) newRunner(
	ctx context.Context, m *member, models *model.Registry, gatewayAddr string, listen rpc.Config,
) (*service, error) {
	hooks, err := p.settings.Runner.Webhooks.open()
	if err == nil && len(hooks.Secret) == 0 {
		hooks.Secret, err = OpenDevWebhookSecret(p.config.Data)
	}
	if err != nil {
		return nil, config.Inside("runner.webhooks", err)
	}
	commands := &commander{
		pool:       upstream.NewPool(upstream.PoolConfig{MaxEndpoints: 1, FastPaths: p.settings.FastPaths}),
		gateway:    gatewayAddr,
		credential: p.runnerToken,
	}
	return newRunner(ctx, m, models, runner.Config{Answers: p.settings.Runner.Answers}, commands, hooks, listen)
}

// newControl returns the control plane, which calls the services within the process.
func (p *platform) newControl(
	ctx context.Context, m *member, models *model.Registry, within inProcess, listen rpc.Config,
) (*service, error) {
	channels, err := p.settings.Control.NodesTLS.channels(p.log)
	if err != nil {
		return nil, config.Wrong("control.nodes_tls", "%v", err)
	}
	pool := upstream.NewPool(upstream.PoolConfig{Local: within.opener, TLS: channels, FastPaths: p.settings.FastPaths})
	return newControl(ctx, m, models, p.settings.Model != "", pool, listen)
}

// views returns the directory of the views.
func (p *platform) views() string { return filepath.Join(p.config.Data, "views") }

// startNATS starts the embedded NATS server over the data directory, and creates or updates its streams
// and buckets.
func (p *platform) startNATS(ctx context.Context) (err error) {
	if err := format.OpenDir(p.config.Data, devFormat); err != nil {
		return err
	}
	p.embedded, err = natsserver.Start(ctx,
		natsserver.Config{Dir: filepath.Join(p.config.Data, "nats"), LazySync: p.config.LazySync, Log: &p.log})
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
	if err := ensureStreams(ctx, p.js, 1, p.log, streamOptions(p.config.NewJournal, p.views())...); err != nil {
		return err
	}
	if p.config.LazySync {
		return p.acceptLazily(ctx)
	}
	return nil
}

// streamOptions returns the options of the streams for a role with a directory of views, or "".
func streamOptions(newJournal bool, views string) []setup.Option {
	options := []setup.Option{setup.Beside(views)}
	if newJournal {
		options = append(options, setup.NewJournal)
	}
	return options
}

// close releases what start opened, in reverse.
func (p *platform) close() error {
	errs := []error{p.sockets.Close()} // sockets that no server uses
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
