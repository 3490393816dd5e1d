package journal

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// Check checks a journal now, and Scrub reads it through once.
func Check(ctx context.Context, j *Journal) error { return j.health.Check(ctx) }

// Scrub reads a part of a journal as Run does.
func Scrub(ctx context.Context, j *Journal) error { return newScrubber(j.health).turn(ctx) }

// Tested timing of the confirmation of a missing end.
const (
	ConfirmEvery  = confirmEvery
	Confirmations = confirmations
)

var _ time.Duration = ConfirmEvery

// Publish publishes messages as one append does after its checks.
func (j *Journal) Publish(ctx context.Context, messages []*nats.Msg) error {
	if err := j.publish(ctx, messages).err; err != nil {
		return appendError(err)
	}
	return nil
}

// PublishGroup publishes appends in one group commit, and returns the outcome of each.
func (j *Journal) PublishGroup(ctx context.Context, appends [][]*nats.Msg) []error {
	c := &committer{
		publish:  j.publish,
		grouped:  func(int) {},
		maxAlone: maxAlone,
		minGroup: minGroup,
		busy:     true,
	}
	group := make([]*commit, len(appends))
	for n, messages := range appends {
		group[n] = &commit{messages: messages, turn: make(chan struct{}, 1), done: make(chan committed, 1)}
	}
	c.publishGroup(group)
	outcomes := make([]error, len(group))
	for n, one := range group {
		if err := c.await(ctx, one).err; err != nil {
			outcomes[n] = appendError(err)
		}
	}
	return outcomes
}

// ParseModelRef is parseModelRef for tests.
var ParseModelRef = parseModelRef
