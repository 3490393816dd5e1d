package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/aymanbagabas/go-udiff"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
)

// diffContext is the number of context lines around a difference.
const diffContext = 3

type modelService struct {
	controlv1connect.UnimplementedModelServiceHandler

	*Service
}

// document returns the document of the model in use, with its KV revision in the bucket; 0: it is not in the bucket.
func (s *Service) document(ctx context.Context) (*controlv1.ModelDocument, uint64, error) {
	current := s.models.Current()
	if s.fixed {
		return &controlv1.ModelDocument{Text: current.Text, Revision: current.Revision}, 0, nil
	}
	kept, err := s.documents.Get(ctx, models.Key)
	if errors.Is(err, kv.ErrNotFound) {
		return &controlv1.ModelDocument{Text: current.Text, Revision: current.Revision}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return documentMessage(kept), kept.Revision, nil
}

// parsed returns the document's model, without parsing it if it is the model in use.
func (s modelService) parsed(ctx context.Context, document *controlv1.ModelDocument) (*model.Model, error) {
	if current := s.models.Current(); current.Revision == document.GetRevision() {
		return current, nil
	}
	return model.ParseStored(ctx, "model", []byte(document.GetText()))
}

func documentMessage(kept kv.Entry[models.Document]) *controlv1.ModelDocument {
	return &controlv1.ModelDocument{
		Text:     kept.Value.Text,
		Revision: kept.Value.Revision,
		By:       kept.Value.By,
		Note:     kept.Value.Note,
		Applied:  timestamppb.New(kept.Time),
	}
}

// GetModel implements ModelService.
func (s modelService) GetModel(ctx context.Context, _ *controlv1.GetModelRequest) (*controlv1.GetModelResponse, error) {
	document, _, err := s.document(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	current, err := s.parsed(ctx, document)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal,
			"the model in use cannot be read by this control node: it is of another version").WithCause(err)
	}
	res := &controlv1.GetModelResponse{Document: document}
	for _, aggregate := range current.Aggregates() {
		out := &controlv1.AggregateType{Name: aggregate.Name}
		for _, command := range aggregate.Commands() {
			schema, err := structpb.NewStruct(command.Schema())
			if err != nil {
				return nil, connect.Errorf(connect.CodeInternal, "the schema of %s.%s cannot be shown", aggregate.Name,
					command.Name).WithCause(err)
			}
			out.Commands = append(out.Commands,
				&controlv1.CommandType{Name: command.Name, Schema: schema, Internal: command.Internal})
		}
		res.Aggregates = append(res.Aggregates, out)
	}
	for _, workflow := range current.Workflows() {
		res.Workflows = append(res.Workflows, workflow.Name)
	}
	return res, nil
}

// CheckModel implements ModelService.
func (s modelService) CheckModel(
	ctx context.Context, req *controlv1.CheckModelRequest,
) (*controlv1.CheckModelResponse, error) {
	document, _, err := s.document(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.CheckModelResponse{}
	if res.Diff, err = difference(document, req.GetText()); err != nil {
		return nil, err
	}
	parsed, err := s.checks.parse(ctx, caller(ctx), req.GetText())
	var mistakes *model.Error
	if errors.As(err, &mistakes) {
		res.Mistakes = mistakeMessages(mistakes.Issues)
		return res, nil
	}
	if err != nil {
		return nil, refusedCheck(ctx, err)
	}
	res.Revision = parsed.Revision
	res.Warnings = mistakeMessages(parsed.Warnings)
	if parsed.Revision != document.GetRevision() {
		// A model of another version of this program may be unreadable here: then nothing is known of its events.
		if current, err := s.parsed(ctx, document); err == nil {
			res.Warnings = append(res.Warnings, mistakeMessages(parsed.ChangeWarnings(current))...)
		}
		for _, view := range parsed.Views() {
			res.RebuiltViews = append(res.RebuiltViews, view.Name)
		}
	}
	return res, nil
}

func mistakeMessages(issues []model.Issue) []*controlv1.ModelMistake {
	var out []*controlv1.ModelMistake
	for _, issue := range issues {
		message := issue.Message
		if issue.Path != "" {
			message = issue.Path + ": " + message
		}
		out = append(out, &controlv1.ModelMistake{Line: int32(issue.Line), Message: message})
	}
	return out
}

// difference returns the unified diff from document to text. Its time is bounded: texts that differ in more than
// about a hundred places are compared coarsely, and the diff shows unchanged lines as replaced.
func difference(document *controlv1.ModelDocument, text string) (string, error) {
	before := document.GetText()
	diff, err := udiff.ToUnified("in use, "+document.GetRevision(), "new", before, udiff.Lines(before, text),
		diffContext)
	if err != nil {
		return "", connect.NewError(connect.CodeInternal, "the difference cannot be shown").WithCause(err)
	}
	return diff, nil
}

// ApplyModel implements ModelService.
func (s modelService) ApplyModel(
	ctx context.Context, req *controlv1.ApplyModelRequest,
) (*controlv1.ApplyModelResponse, error) {
	if s.fixed {
		return nil, precondition(rpc.ReasonModelFromFile,
			"the model comes from a file: change it there, or start the nodes without one")
	}
	parsed, err := s.checks.parse(ctx, caller(ctx), req.GetText())
	if mistakes, ok := errors.AsType[*model.Error](err); ok {
		return nil, mistakesError(mistakes)
	}
	if err != nil {
		return nil, refusedCheck(ctx, err)
	}
	document, revision, err := s.document(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	if document.GetRevision() != req.GetExpectedRevision() {
		return nil, rpc.WithDetails(
			connect.Errorf(
				connect.CodeAborted, "the model in use is %s, not the expected %s: review the changes and retry",
				document.GetRevision(), req.GetExpectedRevision(),
			),
			rpc.Reason(rpc.ReasonVersionMismatch, "current_revision", document.GetRevision()),
		)
	}
	if revision == 0 {
		// It is in the history from now on, and can be applied again.
		started := models.Document{Text: document.GetText(), Revision: document.GetRevision(), Note: startedNote}
		if revision, err = s.documents.Put(ctx, models.Key, started, 0); err != nil {
			return nil, asConnectError(err)
		}
	}
	next := models.Document{
		Text:     req.GetText(),
		Revision: parsed.Revision,
		By:       caller(ctx),
		Note:     req.GetNote(),
	}
	if next.Sequence, err = journal.End(ctx, s.js); err != nil {
		return nil, asConnectError(err)
	}
	applied, err := s.documents.Put(ctx, models.Key, next, revision)
	if err != nil {
		return nil, asConnectError(err)
	}
	stateChanges(ctx, auditlog.Change{Name: "model", Before: document.GetRevision(), After: parsed.Revision})
	kept, err := s.documents.Get(ctx, models.Key)
	if err != nil {
		return nil, asConnectError(err)
	}
	return &controlv1.ApplyModelResponse{
		Document: documentMessage(kept),
		Nodes:    s.rollOut(ctx, parsed.Revision, applied),
	}, nil
}

// mistakesError returns the error of a document with mistakes, each with its line.
func mistakesError(mistakes *model.Error) error {
	bad := &errdetails.BadRequest{}
	for _, issue := range mistakes.Issues {
		bad.FieldViolations = append(bad.FieldViolations,
			&errdetails.BadRequest_FieldViolation{Field: "text", Description: issue.String()})
	}
	return rpc.WithDetails(
		connect.NewError(connect.CodeFailedPrecondition,
			"the model has mistakes and the current one stays in use:\n"+mistakes.Error()),
		bad,
	)
}

// startedNote is the note of the model that the platform started with.
const startedNote = "the model that the platform started with"

const (
	// rolloutWait bounds the wait until all nodes use an applied model; answerMargin is subtracted from the call's
	// deadline for the response.
	rolloutWait  = 5 * time.Second
	answerMargin = 500 * time.Millisecond
)

// rollOut waits until all announced nodes use the model that was applied with the given order, or a later one, and
// returns the model of each. Nodes that do not announce their model are not awaited.
func (s *Service) rollOut(ctx context.Context, revision string, order uint64) []*controlv1.NodeModel {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerMargin))
		defer cancel()
	}
	timeout := time.NewTimer(rolloutWait)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		nodes, changed := s.fleet.Nodes, s.changed
		s.mu.Unlock()
		var out []*controlv1.NodeModel
		waits := false
		for _, node := range nodes {
			if node.Kind == contextkit.KindGateway {
				continue // it uses no model
			}
			out = append(out, &controlv1.NodeModel{
				Node:     node.ID,
				Kind:     node.Kind.String(),
				Revision: node.Model,
				Problem:  node.ModelProblem,
			})
			waits = waits ||
				node.Model != "" && node.Model != revision && node.ModelOrder < order && node.ModelProblem == ""
		}
		if !waits {
			return out
		}
		select {
		case <-changed:
		case <-timeout.C:
			return out
		case <-ctx.Done():
			return out
		}
	}
}

// ListModels implements ModelService.
func (s modelService) ListModels(
	ctx context.Context, _ *controlv1.ListModelsRequest,
) (*controlv1.ListModelsResponse, error) {
	history, err := s.documents.History(ctx, models.Key)
	if err != nil {
		return nil, asConnectError(err)
	}
	res, page := &controlv1.ListModelsResponse{}, response.NewPage()
	if current := s.models.Current(); s.fixed || len(history) == 0 { // it is not in the bucket
		message := &controlv1.ModelDocument{Text: current.Text, Revision: current.Revision, Note: startedNote}
		page.Add(proto.Size(message))
		res.Documents = append(res.Documents, message)
	}
	for _, kept := range history { // newest first
		message := documentMessage(kept)
		if !page.Add(proto.Size(message)) {
			message.Text = ""
		}
		res.Documents = append(res.Documents, message)
	}
	return res, nil
}
