package node

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/model"
)

// openModels returns the model in use and, unless it comes from a file, a function that makes the node use applied
// models until ctx ends; else nil.
func openModels(
	ctx context.Context, js jetstream.JetStream, file string, log zerolog.Logger,
) (r *rollout, follow func(context.Context) error, err error) {
	fallback := model.Wallet
	if file != "" {
		fallback = nil
	}
	platform, err := models.Open(ctx, js, fallback)
	if err != nil {
		return nil, nil, err
	}
	source := model.Source(platform.Source)
	if file != "" {
		source = model.File(file)
	}
	models, err := model.OpenPlaced(ctx, source, func(ctx context.Context, m *model.Model) (uint64, bool, error) {
		return platform.Place(ctx, m.Revision)
	})
	if err != nil {
		return nil, nil, modelError(err)
	}
	r = newRollout(models, log)
	if file != "" {
		return r, nil, nil
	}
	return r, func(ctx context.Context) error { return r.follow(ctx, js) }, nil
}

// openModel reads the model; its mistakes are the error.
func openModel(ctx context.Context, source model.Source) (*model.Registry, error) {
	models, err := model.Open(ctx, source)
	return models, modelError(err)
}

// modelError wraps err, unless it is nil, as the error of an invalid model.
func modelError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the model cannot be used:\n%w", err)
}
