package natshealth

import "time"

// LeaveAfter sets the time without an answer of JetStream after which a process leaves its server.
func (m *Monitor) LeaveAfter(long time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.patience = long
}
