package gateway

import "github.com/headgate/headgate/internal/rpc/grpcmeta"

// AnswerMeter implements [grpcmeta.Metered]: the messages that the node answers are charged to
// the call's caller for as long as they are in memory, so that a client which does not read
// occupies its own tenant's share alone. A call beyond that is RESOURCE_EXHAUSTED, and its
// upstream stream is reset; the channel to the node is unaffected.
func (c *Call) AnswerMeter() grpcmeta.Meter { return (*answerMeter)(&c.charge) }

// answerMeter charges a call for its answers.
type answerMeter charge

// Reserve implements [grpcmeta.Meter].
func (m *answerMeter) Reserve(bytes int64) error {
	if err := m.use.Reserve(bytes); err != nil {
		return exceeded(m.payer, err, 0)
	}
	return nil
}

// Release implements [grpcmeta.Meter].
func (m *answerMeter) Release(bytes int64) { m.use.Release(bytes) }
