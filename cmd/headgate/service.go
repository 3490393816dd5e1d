package main

import (
	"context"
	"fmt"

	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// service is a role that listens, with what runs beside its server.
type service struct {
	server *chassis.Server
	// before ends before the server does, since it calls others; after ends when
	// nobody calls any more. Either may be nil.
	before, after func(context.Context) error
	close         func() error
}

// layers returns what the service runs, in the order in which it ends.
func (s *service) layers() []chassis.Layer {
	var out []chassis.Layer
	for _, part := range []func(context.Context) error{s.before, s.server.Serve, s.after} {
		if part != nil {
			out = append(out, chassis.Layer{part})
		}
	}
	return out
}

// openModel reads the model; its mistakes are the error.
func openModel(ctx context.Context, source model.Source) (*model.Registry, error) {
	models, err := model.Open(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("the model cannot be used:\n%w", err)
	}
	return models, nil
}

func newAggregate(ctx context.Context, js jetstream.JetStream, models *model.Registry, tenants chassis.Tenants, listen chassis.Config, log zerolog.Logger) (*service, error) {
	aggregates, err := aggregate.New(ctx, js, models, tenants)
	if err != nil {
		return nil, err
	}
	s := &service{server: chassis.NewServer(listen, aggregates.Ready, log), close: func() error { return nil }}
	aggregates.Register(s.server.RPC)
	s.server.Metrics.Registerer(listen.Name).MustRegister(aggregates)
	return s, nil
}

func newProjection(ctx context.Context, js jetstream.JetStream, models *model.Registry, tenants chassis.Tenants, views store.Opener, listen chassis.Config, log zerolog.Logger) (*service, error) {
	projections, err := projection.New(ctx, js, models, tenants, views, log)
	if err != nil {
		return nil, err
	}
	s := &service{server: chassis.NewServer(listen, projections.Ready, log), after: projections.Run, close: projections.Close}
	projections.Register(s.server.RPC)
	s.server.Metrics.Registerer(listen.Name).MustRegister(projections)
	return s, nil
}

func newRunner(ctx context.Context, js jetstream.JetStream, models *model.Registry, tenants chassis.Tenants, commands gatewayv1connect.CommandServiceClient, hooks webhook.Config, listen chassis.Config, log zerolog.Logger) (*service, error) {
	workflows, err := runner.New(ctx, js, models, tenants, commands, hooks, log)
	if err != nil {
		return nil, err
	}
	s := &service{server: chassis.NewServer(listen, workflows.Ready, log), before: workflows.Run, close: func() error { return nil }}
	workflows.Register(s.server.RPC)
	return s, nil
}
