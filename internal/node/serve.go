package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	gatewayfleet "github.com/headgate/headgate/gateway/fleet"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/runner"
)

// Options are the options of a role that are not in its file of settings.
type Options struct {
	// NewJournal makes the role start with an empty journal if other streams, buckets or its views were made from a
	// lost one, and accept the loss of its events.
	NewJournal bool
	// Logs receives the log lines.
	Logs io.Writer
}

// Plan is a role whose settings have been checked. Run needs NATS.
type Plan struct {
	newJournal bool

	role     contextkit.Kind
	settings *settings
	lines    *rpc.Lines
	log      zerolog.Logger
	// listen and admin are the role's addresses, which sockets has bound from the start.
	listen  rpc.Config
	admin   string
	sockets rpc.Sockets
	denied  denials
	// open creates the role and binds its addresses. It may be called again after an error.
	open func(ctx context.Context, js *bus) (*running, error)

	waits          atomic.Pointer[string] // why the role is not ready while it starts
	connected      atomic.Bool            // to NATS, while it starts
	streamsTimeout time.Duration
}

// running is a role that listens.
type running struct {
	url, admin string
	layers     []rpc.Layer
	close      func() error
	js         *bus
}

// Open reads the settings of a role from the file at path, and checks everything that can be checked without NATS.
// role is one of the platform's kinds of nodes. Errors name the file, the line and the setting.
func Open(ctx context.Context, role contextkit.Kind, path string, options Options) (*Plan, error) {
	s, err := readSettings(path)
	if err != nil {
		return nil, err
	}
	s.NATS = s.NATS.as(access.Role(role))
	level, _ := zerolog.ParseLevel(s.Log) // checked by common
	lines := rpc.NewLines(options.Logs)
	p := &Plan{
		newJournal:     options.NewJournal,
		role:           role,
		settings:       s,
		lines:          lines,
		streamsTimeout: defaultStreamsTimeout,
		log:            zerolog.New(lines).Level(level).With().Timestamp().Str("role", role.String()).Logger(),
	}
	prepare := map[contextkit.Kind]func(context.Context) error{
		contextkit.KindGateway:    p.gateway,
		contextkit.KindAggregate:  p.aggregate,
		contextkit.KindProjection: p.projection,
		contextkit.KindRunner:     p.runner,
		contextkit.KindControl:    p.control,
	}[role]
	if prepare == nil {
		return nil, fmt.Errorf("unknown role %q", role)
	}
	if err := errors.Join(
		s.common(), config.Inside(role.String(), prepare(contextkit.PlatformContext(ctx))),
	); err != nil {
		return nil, s.file.Locate(err)
	}
	return p, nil
}

// CheckNodes asks the nodes of a gateway's settings that have reflect set for their services. Errors: a
// [gatewayfleet.NodesAwayError] if nodes do not respond, any other error if a node has no method with a policy. Roles
// other than the gateway have no nodes to ask.
func (p *Plan) CheckNodes(ctx context.Context) error {
	if p.role != contextkit.KindGateway {
		return nil
	}
	return gatewayfleet.Check(ctx, reflected(p.settings.Gateway.Nodes), p.settings.Gateway.Upstream)
}

// Run runs the role until ctx ends. It writes the role's addresses to out.
func (p *Plan) Run(ctx context.Context, out io.Writer) error {
	return errors.Join(p.run(ctx, out), p.lines.Flush())
}

func (p *Plan) run(ctx context.Context, out io.Writer) (err error) {
	p.log.Info().Stringer("fast_paths", p.settings.FastPaths).Msg("the role starts")
	defer p.settings.FastPaths.Collect()()
	r, err := p.start(ctx)
	switch {
	case ctx.Err() != nil && r == nil:
		return nil // it was stopped before it had started
	case err != nil:
		return err
	}
	defer r.js.Conn().Close()
	defer func() { err = errors.Join(err, r.close()) }()
	listens := fmt.Sprintf("headgate %s listens on %s\n", p.role, r.url)
	if r.admin != "" {
		listens += fmt.Sprintf("for operators: %s\n", r.admin)
	}
	if _, err := io.WriteString(out, listens); err != nil {
		return err
	}
	return rpc.RunLayers(ctx, append(r.layers, r.js.run())...)
}

func (p *Plan) gateway(ctx context.Context) error {
	g := &p.settings.Gateway
	listen, listenErr := g.listen(contextkit.KindGateway, p.log)
	accepted, issuers, authErr := g.Auth.verify(ctx)
	parts, partsErr := g.open(p.log)
	if err := errors.Join(listenErr, config.Inside("auth", authErr), partsErr); err != nil {
		return err
	}
	listen.Proxies, listen.Sockets = parts.proxies, &p.sockets
	p.listen, p.admin = listen, g.Admin
	p.open = func(ctx context.Context, js *bus) (*running, error) {
		var err error
		if accepted.Issuers == nil {
			if accepted.Issuers, err = openKeys(ctx, issuers, p.log); err != nil {
				return nil, err
			}
		}
		id, err := g.Node.identify(contextkit.KindGateway, listen.Addr)
		if err != nil {
			return nil, err
		}
		e, err := openEdge(ctx, js, edgeConfig{
			gateway:     g.config(listen, accepted),
			id:          id,
			tracing:     p.settings.Tracing,
			descriptors: parts.descriptors,
			routes:      parts.routes,
			placed:      g.placed(),
			nodes:       g.Nodes,
		}, p.log)
		if err != nil {
			return nil, err
		}
		node, err := g.Node.node(contextkit.KindGateway, id, e.gateway.Addr())
		if err != nil {
			return nil, err
		}
		return &running{
			url:    e.gateway.URL(),
			admin:  e.gateway.AdminURL(),
			layers: e.layers(node),
			close:  func() error { return nil },
		}, nil
	}
	return nil
}

// service checks the settings that the services share, and prepares one for the start.
func (p *Plan) service(
	ctx context.Context, kind contextkit.Kind, section serviceSettings,
	create func(ctx context.Context, m *member, models *model.Registry, listen rpc.Config) (*service, error),
) error {
	listen, err := section.listen(kind, p.log)
	tenants, tenantsErr := p.settings.served()
	if _, modelErr := openModel(ctx, p.settings.source()); modelErr != nil {
		tenantsErr = errors.Join(tenantsErr, modelErr)
	}
	if tenantsErr != nil {
		// It is outside the role's section, so its lines are located here.
		tenantsErr = p.settings.file.Locate(tenantsErr)
	}
	if err := errors.Join(err, tenantsErr); err != nil {
		return err
	}
	listen.Sockets = &p.sockets
	listen.Admin = section.Admin
	if section.TLS.CA != "" {
		listen.Callers = p.settings.Callers.callers(kind)
	}
	p.listen, p.admin = listen, section.Admin
	p.open = func(ctx context.Context, js *bus) (*running, error) {
		rollout, follow, err := openModels(ctx, js, p.settings.Model, p.log)
		if err != nil {
			return nil, err
		}
		id, err := section.Node.identify(kind, listen.Addr)
		if err != nil {
			return nil, err
		}
		m, err := newMember(ctx, js, memberConfig{
			kind:    kind,
			id:      id,
			tenants: tenants,
			rollout: rollout,
			tracing: p.settings.Tracing,
			tokens:  &token.Gate{},
		}, p.log)
		if err != nil {
			return nil, err
		}
		s, err := create(ctx, m, rollout.models, listen)
		if err != nil {
			return nil, errors.Join(err, m.spans.close(ctx))
		}
		if err := s.server.Listen(ctx); err != nil {
			return nil, errors.Join(err, s.close())
		}
		node, err := section.Node.node(kind, id, s.endpoint())
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		// Withdraw the announcement before anything ends, so that no more calls arrive.
		layers := append([]rpc.Layer{{s.announce(node)}}, s.layers()...)
		if follow != nil {
			layers = append(layers, rpc.Layer{follow})
		}
		return &running{
			url:    s.server.URL(),
			admin:  s.server.AdminURL(),
			layers: layers,
			close:  s.close,
		}, nil
	}
	return nil
}

func (p *Plan) aggregate(ctx context.Context) error {
	a := &p.settings.Aggregate
	return errors.Join(
		a.check(),
		p.service(
			ctx, contextkit.KindAggregate, a.serviceSettings,
			func(ctx context.Context, m *member, models *model.Registry, listen rpc.Config) (*service, error) {
				return newAggregate(ctx, m, models, a.config(p.settings.NATS.Synced), listen)
			},
		),
	)
}

func (p *Plan) control(ctx context.Context) error {
	c := &p.settings.Control
	channels, err := c.NodesTLS.channels(p.log)
	if err != nil {
		err = config.Wrong("nodes_tls", "%v", err)
	}
	return errors.Join(
		err,
		p.service(
			ctx, contextkit.KindControl, c.serviceSettings,
			func(ctx context.Context, m *member, models *model.Registry, listen rpc.Config) (*service, error) {
				pool := upstream.NewPool(upstream.PoolConfig{TLS: channels, FastPaths: p.settings.FastPaths})
				return newControl(ctx, m, models, p.settings.Model != "", pool, listen)
			},
		),
	)
}

func (p *Plan) projection(ctx context.Context) error {
	var dataErr error
	if p.settings.Projection.Data == "" && p.settings.Projection.Postgres == "" {
		dataErr = config.Wrong("data", "is missing: the views need a directory")
	}
	answers := projection.Config{Answers: p.settings.Projection.Answers}
	return errors.Join(
		dataErr, config.Inside("answers", answers.Answers.Validate()),
		p.service(
			ctx, contextkit.KindProjection, p.settings.Projection.serviceSettings,
			func(ctx context.Context, m *member, models *model.Registry, listen rpc.Config) (*service, error) {
				url := p.settings.Projection.Postgres
				if url == "" {
					return newSQLiteProjection(ctx, m, models, answers, p.settings.Projection.Data, listen)
				}
				return newPostgresProjection(ctx, m, models, answers, url, listen)
			},
		),
	)
}

func (p *Plan) runner(ctx context.Context) error {
	r := &p.settings.Runner
	var errs []error
	if r.Gateway == "" {
		errs = append(errs, config.Wrong("gateway", "is missing: commands are sent to it"))
	}
	if _, err := readCredential(r.Credential); err != nil {
		errs = append(errs, config.Wrong("credential", "%v", err))
	}
	errs = append(errs, config.Inside("answers", r.Answers.Validate()))
	hooks, err := r.Webhooks.open()
	if err != nil {
		errs = append(errs, config.Inside("webhooks", err))
	}
	channels, err := r.GatewayTLS.channels(p.log)
	if err != nil {
		errs = append(errs, config.Wrong("gateway_tls", "%v", err))
	}
	return errors.Join(
		errors.Join(errs...),
		p.service(
			ctx, contextkit.KindRunner, r.serviceSettings,
			func(ctx context.Context, m *member, models *model.Registry, listen rpc.Config) (*service, error) {
				commands := &commander{
					pool: upstream.NewPool(
						upstream.PoolConfig{MaxEndpoints: 1, TLS: channels, FastPaths: p.settings.FastPaths},
					),
					gateway:    r.Gateway,
					credential: func() (string, error) { return readCredential(r.Credential) },
				}
				return newRunner(ctx, m, models, runner.Config{Answers: r.Answers}, commands, hooks, listen)
			},
		),
	)
}
