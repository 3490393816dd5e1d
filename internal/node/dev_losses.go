package node

import (
	"context"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
)

// acceptAgain is the delay before accepting a loss is retried.
const acceptAgain = 5 * time.Second

// acceptLazily accepts the loss of events by a power failure, if writes of the journal are not synced.
func (p *platform) acceptLazily(ctx context.Context) error {
	eventLog, err := journal.Open(ctx, p.js)
	if err != nil {
		return err
	}
	if damage := eventLog.Integrity().Damage(); damage == nil || damage.End == nil {
		return nil
	}
	loss, err := journal.AcceptLoss(ctx, p.js, "", "writes are not synced (--lazy-sync)")
	if err == nil {
		p.log.Warn().Any("loss", loss).Msg(
			"the journal has lost events, which --lazy-sync accepts; rebuilding the views",
		)
	}
	return err
}

// acceptLosses accepts, until ctx ends, losses of an unsynced journal that views prove: the record of the journal's
// end is on the same disk, and may have gone back together with it.
func (p *platform) acceptLosses(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	integrity := p.projection.integrity
	for {
		changed := integrity.Changed()
		var again <-chan time.Time
		if damage := integrity.Damage(); damage != nil && damage.End != nil {
			if err := p.acceptLazily(ctx); err != nil && ctx.Err() == nil {
				p.log.Warn().Err(err).Dur("again_in_ms", acceptAgain).Msg(
					"accepting a loss of the journal failed, retrying",
				)
				again = time.After(acceptAgain)
			}
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}
