package node

import (
	"context"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// UnmatchedRights returns the rights that match nothing in the model of a file: no aggregate type, command, view or
// workflow. Such a right is valid, but probably misspelt, or for another model.
func UnmatchedRights(ctx context.Context, file string, rights []auth.Right) ([]auth.Right, error) {
	models, err := openModel(ctx, model.File(file))
	if err != nil {
		return nil, err
	}
	return unmatchedRights(models.Current(), rights), nil
}

func unmatchedRights(m *model.Model, rights []auth.Right) (unmatched []auth.Right) {
	for _, right := range rights {
		if right.Resources != "" && !matchesModel(m, right) {
			unmatched = append(unmatched, right)
		}
	}
	return unmatched
}

// matchesModel reports whether a narrowed right matches anything in the model. Rights whose resources are not the
// model's always do.
func matchesModel(m *model.Model, right auth.Right) bool {
	holder := auth.Principal{Rights: []auth.Right{right}}
	switch right.Action {
	case auth.ActionSubmit, auth.ActionInternal:
		for _, aggregate := range m.Aggregates() {
			for _, command := range aggregate.Commands() {
				if command.Internal == (right.Action == auth.ActionInternal) &&
					holder.AllowsPart(right.Action, []byte(aggregate.Name), []byte(command.Name)) {
					return true
				}
			}
		}
	case "aggregate.read", "events.read":
		for _, aggregate := range m.Aggregates() {
			if holder.Allows(right.Action, aggregate.Name) {
				return true
			}
		}
	case "query.read":
		for _, view := range m.Views() {
			if holder.Allows(right.Action, view.Name) {
				return true
			}
		}
	case "workflow.read":
		for _, workflow := range m.Workflows() {
			if holder.Allows(right.Action, workflow.Name) {
				return true
			}
		}
	default:
		return true
	}
	return false
}

// checkRightsEvery is the interval between two checks of the rights of API keys, which change with their file.
const checkRightsEvery = 30 * time.Second

// watchRights logs, until ctx ends, which rights of API keys match nothing in the applied model, each once per model.
func watchRights(ctx context.Context, js jetstream.JetStream, keys *auth.APIKeyRing, log zerolog.Logger) error {
	if keys == nil {
		<-ctx.Done()
		return nil
	}
	applied := make(chan *model.Model, 1)
	follow := func(all map[string]kv.Entry[models.Document]) {
		if m, err := model.ParseContext(ctx, "model", []byte(all[models.Key].Value.Text)); err == nil {
			select {
			case <-applied: // an older one
			default:
			}
			applied <- m
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		kv.Follow(ctx, js, streams.BucketModels, kv.Whole(follow), func(err error) {
			log.Warn().Err(err).Msg("following applied models failed; rights of API keys are not checked against them")
		})
	}()
	defer func() { <-done }()
	ticker := time.NewTicker(checkRightsEvery)
	defer ticker.Stop()
	var current *model.Model
	var told map[string]bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case current = <-applied:
			told = map[string]bool{}
		case <-ticker.C:
		}
		if current == nil {
			continue
		}
		for id, rights := range keys.Rights() {
			var names []string
			for _, right := range unmatchedRights(current, rights) {
				if text := right.String(); !told[id+" "+text] {
					told[id+" "+text] = true
					names = append(names, text)
				}
			}
			if len(names) > 0 {
				log.Warn().Str("key", id).Str("model", current.Revision).Str("rights",
					strings.Join(names, " ")).Msg("rights of an API key match nothing in the model")
			}
		}
	}
}
