package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/structpb"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// maxStoredRequest bounds the stored content of a request, in bytes. For a larger one the digest is stored: the model
// that the instance is pinned to makes the same content again.
const maxStoredRequest = 16 << 10

// request sets the request of a step.
func (i *instance) request(step string, r *request) {
	if i.Requests == nil {
		i.Requests = map[string]*request{}
	}
	i.Requests[step] = r
}

// prepare returns the request of a step: the stored one, or else the one that the model makes. Error: a
// [*refusedError] if the model cannot make it.
func (e *engine) prepare(ctx context.Context, i *instance, name string, s model.Step) (*request, error) {
	stored := i.Requests[name]
	if stored != nil && stored.Digest == nil {
		return stored, nil
	}
	made, err := e.build(ctx, i, name, s)
	if err != nil || stored == nil {
		return made, err
	}
	if digest := made.digest(); !bytes.Equal(digest, stored.Digest) {
		return nil, &undrivableError{
			step:    name,
			message: "the step was sent with content that differs from what the model makes now",
		}
	}
	made.Key = stored.Key
	return made, nil
}

// build makes the request of a step by the model.
func (e *engine) build(ctx context.Context, i *instance, name string, s model.Step) (*request, error) {
	made := &request{Key: stepKey(i, name)}
	if s.Webhook == nil {
		call, err := s.Submit.Build(ctx, i.Trigger, i.Failure)
		if errors.Is(err, model.ErrEvaluation) {
			return nil, &refusedError{message: "the model could not build the command: " + err.Error()}
		}
		made.Aggregate, made.ID = call.AggregateType, call.AggregateID
		made.Command, made.Payload = call.Command, call.Payload
		return made, err
	}
	target, object, err := s.Webhook.Build(ctx, i.Trigger, i.Failure)
	if errors.Is(err, model.ErrEvaluation) {
		return nil, &refusedError{message: "the model could not build the webhook: " + err.Error()}
	}
	if err != nil {
		return nil, err
	}
	if made.Body, err = json.Marshal(object); err != nil {
		return nil, &refusedError{message: "the model's body is not JSON: " + err.Error()}
	}
	made.URL = target
	return made, nil
}

// content returns the part of a request that may be large.
func (r *request) content() []byte {
	if r.URL != "" {
		return r.Body
	}
	text, _ := json.Marshal(r.Payload) // content that cannot be JSON is refused when it is sent
	return text
}

func (r *request) digest() []byte {
	sum := sha256.Sum256(append([]byte(r.URL+"\x00"+r.Aggregate+"\x00"+r.ID+"\x00"+r.Command+"\x00"), r.content()...))
	return sum[:]
}

// record returns the stored form of a request.
func (r *request) record() *request {
	if len(r.content()) <= maxStoredRequest {
		return r
	}
	return &request{Key: r.Key, Digest: r.digest()}
}

// send sends a request. Retries, by this node or another, have one effect, since the idempotency key is the same.
// Error: a [*refusedError] if it has no effect and never will; an [*undrivableError] if an operator must find out
// whether it has one; after any other error, it is sent again.
func (e *engine) send(ctx context.Context, i *instance, step string, r *request) error {
	if r.URL != "" {
		err := e.webhooks.Post(ctx, webhook.Call{
			Source:   i.Workflow + "/" + step,
			Target:   r.URL,
			Body:     r.Body,
			Key:      r.Key,
			Repeated: r.sent,
			Trial:    i.trial,
		})
		var refusal *webhook.RefusedError
		if errors.As(err, &refusal) {
			return &refusedError{message: refusal.Reason}
		}
		return err
	}
	payload, err := structpb.NewStruct(r.Payload)
	if err != nil {
		return &refusedError{message: "the model's payload is not JSON: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	_, err = e.commands.Submit(ctx, &aggregatev1.SubmitRequest{
		TenantId:       i.tenant.String(),
		AggregateType:  r.Aggregate,
		AggregateId:    r.ID,
		Command:        r.Command,
		Payload:        payload,
		IdempotencyKey: r.Key,
	})
	return e.refusal(r, err)
}

// refusal converts the error of a command to an error of [engine.send].
func (e *engine) refusal(r *request, err error) error {
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return err
	}
	switch remote.Code() {
	case connect.CodeAlreadyExists:
		// The step's key was used for another command: by an earlier version that made another command of the step,
		// or by a client that guessed the key. The outcome is unknown, and compensating the steps before it may be
		// wrong.
		return &undrivableError{message: "the step's idempotency key was used for another command: " + remote.Message()}
	case connect.CodeNotFound:
		return err // the node does not know the aggregate type or the command: it uses another model
	case connect.CodeInvalidArgument:
		if e.lags(r, remote) {
			return err
		}
		return &refusedError{message: remote.Message()}
	case connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return &refusedError{message: remote.Message()}
	}
	return err
}

// badRequest is the type of the error detail for a payload that does not match the command's schema.
const badRequest = "google.rpc.BadRequest"

// lags reports whether a node refuses a payload that the model in use accepts, so that the node's model is another,
// earlier or later.
func (e *engine) lags(r *request, refusal *connect.Error) bool {
	invalid := false
	for _, detail := range refusal.Details() {
		invalid = invalid || detail.Type == badRequest
	}
	if !invalid {
		return false
	}
	aggregate, ok := e.models.Current().Aggregate(r.Aggregate)
	if !ok {
		return true
	}
	command, ok := aggregate.Command(r.Command)
	return !ok || command.Accepts(model.Normalize(r.Payload).(model.Object))
}

// maxKeyLength is the length limit of idempotency keys in CommandService.
const maxKeyLength = 128

// stepKey returns the idempotency key of a step's command.
func stepKey(i *instance, step string) string {
	key := "workflow:" + i.eventName() + ":" + i.Workflow + ":" + strings.ReplaceAll(step, " ", "-")
	if len(key) > maxKeyLength {
		sum := sha256.Sum256([]byte(key))
		key = "workflow:" + hex.EncodeToString(sum[:])
	}
	return key
}
