package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/config"
)

// edgeID is the gateway's node id.
const edgeID = "gateway-1"

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

// bindGateway binds the addresses of the gateway, and returns the one for commands of the runner.
func (p *platform) bindGateway(ctx context.Context) (commands string, err error) {
	const admin = 2
	g := p.settings.Gateway
	// In the order in which the gateway's servers take them.
	for i, addr := range []string{g.Server.Addr, g.GRPC, g.Admin} {
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

// startGateway opens the gateway over the services within the process.
func (p *platform) startGateway(ctx context.Context, within inProcess) error {
	g := &p.settings.Gateway
	listen, err := g.listen(contextkit.KindGateway, p.log)
	if err != nil {
		return config.Inside(contextkit.KindGateway.String(), err)
	}
	var nodes []route.Node
	for _, s := range []*service{p.aggregate, p.projection, p.runner, p.control} {
		nodes = append(nodes, devNode(s.member.kind, s.endpoint()))
	}
	parts, err := g.open(p.log, nodes...)
	if err != nil {
		return config.Inside(contextkit.KindGateway.String(), err)
	}
	accepted, err := p.auth(ctx)
	if err != nil {
		return err
	}
	listen.Proxies, listen.Sockets = parts.proxies, &p.sockets
	config := g.config(listen, accepted)
	config.Platform = append(slices.Clone(config.Platform), runnerSubject)
	config.Upstream.Local = within.opener
	config.LocalAdmin = true
	p.edge, err = openEdge(ctx, p.js, edgeConfig{
		gateway:     config,
		id:          edgeID,
		tracing:     p.settings.Tracing,
		descriptors: parts.descriptors,
		routes:      parts.routes,
		placed:      g.placed(),
		nodes:       g.Nodes,
	}, p.log)
	return err
}

// auth returns the accepted credentials: tokens of the process's issuer and of the further issuers, and API keys.
func (p *platform) auth(ctx context.Context) (auth.Config, error) {
	settings := p.settings.Gateway.Auth
	accepted, err := settings.credentials(ctx)
	further, furtherErr := settings.further(devIssuer)
	if err := errors.Join(err, furtherErr); err != nil {
		return auth.Config{}, config.Inside("gateway.auth", err)
	}
	own, err := p.issuer.Config(ctx)
	if err != nil {
		return auth.Config{}, err
	}
	accepted.Issuers, err = openKeys(ctx, further, p.log, own.Issuers...)
	return accepted, err
}

// runnerTokenTTL is the lifetime of the runner's tokens: one is issued for each command, which costs less than the
// command's append.
const runnerTokenTTL = time.Minute

// runnerSubject names the runner's principal.
const runnerSubject = string(contextkit.KindRunner)

// runnerToken returns a token for the runner's next command.
func (p *platform) runnerToken() (string, error) {
	principal, err := auth.NewPrincipal(runnerSubject, []string{"*"}, []string{"command.submit", auth.ActionInternal})
	if err != nil {
		return "", err
	}
	return p.issuer.Issue(principal, runnerTokenTTL)
}
