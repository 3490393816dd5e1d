package node

import (
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/descriptors"
)

// Open files that a process needs in addition to its connections.
const (
	// baseFiles are files of the runtime, the log, NATS, certificates and settings.
	baseFiles = 96
	// embeddedFiles are files of an embedded NATS server's streams.
	embeddedFiles = 256
	// viewFiles are a projection's SQLite files: up to 256 are open concurrently, with up to 12 descriptors each.
	viewFiles = 256 * 12
)

// checkFiles raises the process's limit of open files, and compares it with the needs.
func checkFiles(log zerolog.Logger, needs ...descriptors.Need) error {
	warning, err := descriptors.Check(needs...)
	if warning != "" {
		log.Warn().Msg(warning)
	}
	return err
}

// files returns the open files that the role may need.
func (p *Plan) files() []descriptors.Need {
	needs := []descriptors.Need{{What: "the process", Count: baseFiles, Always: true}}
	connections := p.listen.WithDefaults().MaxConnections
	needs = append(needs, descriptors.Need{What: p.role.String() + ".server.max_connections", Count: connections})
	if p.listen.GRPC != "" {
		needs = append(needs, descriptors.Need{What: "connections to " + p.role.String() + ".grpc", Count: connections})
	}
	switch {
	case p.role == contextkit.KindGateway:
		needs = append(
			needs,
			descriptors.Need{
				What:  "gateway.upstream.max_endpoints",
				Count: p.settings.Gateway.Upstream.WithDefaults().MaxEndpoints,
			},
		)
	case p.role == contextkit.KindProjection && p.settings.Projection.Postgres == "":
		needs = append(needs, descriptors.Need{What: "files of views", Count: viewFiles})
	}
	return needs
}

// files returns the open files that the platform may need. It counts only connections of the gateway, since its calls
// reach the services without connections.
func (p *platform) files() []descriptors.Need {
	connections := p.settings.Gateway.Server.WithDefaults().MaxConnections
	return []descriptors.Need{
		{What: "the process", Count: 2 * baseFiles, Always: true},
		{What: "the streams of NATS", Count: embeddedFiles, Always: true},
		{What: "files of views", Count: viewFiles},
		{What: "connections to the gateway", Count: connections},
		{What: "connections to its address for gRPC", Count: connections},
	}
}
