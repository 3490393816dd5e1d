package gateway

import "github.com/headgate/headgate/internal/rpc/grpcmeta"

// AnswerMeter implements [grpcmeta.Metered]. It charges the node's messages to the caller's budget
// for as long as they are in memory, so that a client that does not read uses only its own tenant's
// share. Beyond the budget the call fails with RESOURCE_EXHAUSTED and its upstream stream is reset;
// the connection to the node is unaffected.
func (c *Call) AnswerMeter() grpcmeta.Meter { return (*answerMeter)(&c.charge) }

// answerMeter charges the messages of a node to the call's budget.
type answerMeter charge

// Reserve implements [grpcmeta.Meter].
func (m *answerMeter) Reserve(bytes int64) error {
	if err := m.use.Reserve(bytes); err != nil {
		return limitError(m.scope, err, 0)
	}
	return nil
}

// Release implements [grpcmeta.Meter].
func (m *answerMeter) Release(bytes int64) { m.use.Release(bytes) }
