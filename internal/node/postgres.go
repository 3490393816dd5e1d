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
func newPostgresProjection(
	ctx context.Context, m *member, models *model.Registry, config projection.Config, url string, listen rpc.Config,
) (*service, error) {
	database, err := postgres.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	return newProjection(ctx, m, models, config, viewStore{
		open:  database.Views,
		ready: database.Ready,
		run:   func(ctx context.Context) error { return database.Watch(ctx, m.log) },
		close: func() error {
			database.Close()
			return nil
		},
	}, listen)
}
