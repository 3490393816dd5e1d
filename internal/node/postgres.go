package node

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/rs/zerolog"
)

// databaseAgain is the wait before a database that does not answer is connected to again.
const databaseAgain = time.Second

// newPostgresProjection returns the projection role with its views in PostgreSQL.
func newPostgresProjection(ctx context.Context, m *member, models *model.Registry, config projection.Config, url string, listen chassis.Config) (*service, error) {
	database, err := openDatabase(ctx, url, m.log)
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
		return chassis.RunLayers(ctx, chassis.Layer{run, func(ctx context.Context) error { return database.Watch(ctx, m.log) }})
	}
	s.close = func() error {
		err := views()
		database.Close()
		return err
	}
	return s, nil
}

// openDatabase connects to PostgreSQL. While the database does not answer, it tries again until
// ctx ends.
func openDatabase(ctx context.Context, url string, log zerolog.Logger) (*postgres.Database, error) {
	for waiting := false; ; waiting = true {
		database, err := postgres.Open(ctx, url)
		if !errors.Is(err, store.ErrUnavailable) {
			return database, err
		}
		if !waiting {
			log.Warn().Err(err).Dur("again_in", databaseAgain).Msg("PostgreSQL does not answer: the start waits for it")
		}
		select {
		case <-time.After(databaseAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}
