package backbone

import (
	"context"
	"time"
)

// CheckJournal checks a journal now, and Scrub reads it through once.
func CheckJournal(ctx context.Context, j *Journal) error { return j.health.check(ctx) }

// ScrubJournal reads a part of a journal as Run does.
func ScrubJournal(ctx context.Context, j *Journal) error { return newScrubber(j.health).turn(ctx) }

// Tested timing of the confirmation of a missing end.
const (
	ConfirmEvery  = confirmEvery
	Confirmations = confirmations
)

var _ time.Duration = ConfirmEvery
