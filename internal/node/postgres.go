package node

import (
	"context"

	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/postgres"
)

// newPostgresProjection returns the projection role with its views in PostgreSQL. The error is store.ErrUnavailable
// while the database does not respond.
func newPostgresProjection(ctx context.Context, m *member, models *model.Registry, config projection.Config, url string, listen rpc.Config) (*service, error) {
	database, err := postgres.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	config.Store = database.Ready
	s, err := newProjection(ctx, m, models, config, database.Views, listen)
	if err != nil {
		database.Close()
		return nil, err
	}
	run, views := s.after, s.close
	s.after = func(ctx context.Context) error {
		return rpc.RunLayers(ctx, rpc.Layer{run, func(ctx context.Context) error { return database.Watch(ctx, m.log) }})
	}
	s.close = func() error {
		err := views()
		database.Close()
		return err
	}
	return s, nil
}
