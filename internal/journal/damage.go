package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Errors of a damaged journal.
var (
	// ErrEndMissing: events at the journal's end that were acknowledged are missing. Nothing is
	// appended until an operator accepts the loss ([AcceptLoss]).
	ErrEndMissing = errors.New("the end of the journal is missing")
	// ErrNoLoss: the journal is whole, or its loss was accepted before.
	ErrNoLoss = errors.New("no loss of the journal is known")
)

// maxGaps bounds the gaps that are recorded and shown; those beyond are joined to the last.
const maxGaps = 256

// Gap is a range of sequences whose events the journal does not have.
type Gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"` // inclusive
}

func (g Gap) String() string {
	if g.From == g.To {
		return fmt.Sprint(g.From)
	}
	return fmt.Sprintf("%d to %d", g.From, g.To)
}

// LostEnd is the end of the journal that is missing.
type LostEnd struct {
	// Last is the journal's last sequence, and Recorded its last recorded sequence.
	Last     uint64 `json:"last"`
	Recorded uint64 `json:"recorded"`
	// Why is the proof of the loss.
	Why string `json:"why"`
}

// Damage describes the missing part of the journal. The stream denies deletion, so every missing
// sequence is damage.
type Damage struct {
	// Gaps are the missing sequences before the journal's end, in order and not adjacent.
	Gaps []Gap `json:"gaps,omitempty"`
	// Missing is the number of events in Gaps.
	Missing uint64 `json:"missing,omitempty"`
	// End is the missing end; nil: the end is there.
	End *LostEnd `json:"end,omitempty"`
	// Since is when this process noticed it.
	Since time.Time `json:"since"`
}

// shownGaps bounds the gaps that a text names.
const shownGaps = 3

// String describes the damage to operators.
func (d *Damage) String() string {
	if d == nil {
		return "the journal is whole"
	}
	var parts []string
	if len(d.Gaps) > 0 {
		var gaps []string
		for n, gap := range d.Gaps {
			if n == shownGaps {
				gaps = append(gaps, fmt.Sprintf("and %d further gaps", len(d.Gaps)-n))
				break
			}
			gaps = append(gaps, gap.String())
		}
		parts = append(parts, fmt.Sprintf("%d events are missing at sequences %s", d.Missing, strings.Join(gaps, ", ")))
	}
	if d.End != nil {
		parts = append(
			parts,
			fmt.Sprintf(
				"its end is missing (%s): the last sequence is %d, and was %d; commands are refused until an "+
					"operator accepts the loss",
				d.End.Why,
				d.End.Last,
				d.End.Recorded,
			),
		)
	}
	return "the journal is damaged: " + strings.Join(parts, "; ")
}

// mergeGaps returns gaps in order and joins gaps that overlap or are adjacent. It returns at most
// maxGaps.
func mergeGaps(gaps []Gap) []Gap {
	gaps = slices.Clone(gaps)
	slices.SortFunc(gaps, func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
	var out []Gap
	for _, gap := range gaps {
		last := len(out) - 1
		switch {
		case last >= 0 && (gap.From <= out[last].To+1 || len(out) == maxGaps):
			out[last].To = max(out[last].To, gap.To)
		default:
			out = append(out, gap)
		}
	}
	return out
}

// subtractGaps returns what gaps has and accepted has not; both are merged.
func subtractGaps(gaps, accepted []Gap) []Gap {
	var out []Gap
	for _, gap := range gaps {
		for _, known := range accepted {
			if known.To < gap.From || known.From > gap.To {
				continue
			}
			if known.From > gap.From {
				out = append(out, Gap{gap.From, known.From - 1})
			}
			gap.From = known.To + 1
		}
		if gap.From <= gap.To {
			out = append(out, gap)
		}
	}
	return out
}

// countGaps returns the number of sequences in gaps that do not overlap.
func countGaps(gaps []Gap) (count uint64) {
	for _, gap := range gaps {
		count += gap.To - gap.From + 1
	}
	return count
}

// inGaps reports whether a sequence is in one of the gaps.
func inGaps(gaps []Gap, sequence uint64) bool { return gapOf(gaps, sequence).To > 0 }

// gapOf returns the gap that has a sequence above 0, the zero value if there is none.
func gapOf(gaps []Gap, sequence uint64) Gap {
	for _, gap := range gaps {
		if sequence > 0 && gap.From <= sequence && sequence <= gap.To {
			return gap
		}
	}
	return Gap{}
}

// rangesOf returns the gaps that sorted sequences are.
func rangesOf(sequences []uint64) []Gap {
	var out []Gap
	for _, sequence := range sequences {
		if last := len(out) - 1; last >= 0 && out[last].To+1 == sequence {
			out[last].To = sequence
		} else {
			out = append(out, Gap{sequence, sequence})
		}
	}
	return out
}
