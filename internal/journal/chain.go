package journal

// Chain follows the versions of an aggregate's events, each of which is one above the one before.
// Messages that are no events are passed over: where they claim versions in order, their producer
// may have counted them, and the next event's version may be one above theirs too.
type Chain struct {
	// Version is that of the last event; 0: none.
	Version int64
	// Claimed is the last version in order that a message after it claims that is no event.
	Claimed int64
}

// Pass notes a message that is no event, and the version that it claims.
func (c *Chain) Pass(claimed int64) {
	if claimed == max(c.Version, c.Claimed)+1 {
		c.Claimed = claimed
	}
}

// Continues reports whether an event of a version is the next.
func (c *Chain) Continues(version int64) bool {
	return version == c.Version+1 || c.Claimed > c.Version && version == c.Claimed+1
}

// Next notes an event.
func (c *Chain) Next(version int64) { c.Version, c.Claimed = version, 0 }
