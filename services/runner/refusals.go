package runner

import (
	"encoding/json"
	"fmt"
)

// AddRefusals is used to restore a backup in which an instance's record is older than the journal. It adds to the
// restored record (nil: there is none) a refusal that only a later version of the record contains, and returns nil if
// there is nothing to add.
//
// A completed step is found again under its idempotency key, but a refused command leaves nothing in the journal:
// sent again, it might be accepted after the steps before it have been compensated. With the refusal in its record,
// the instance is compensated to the end, regardless of what the journal contains of it.
func AddRefusals(restored, later []byte) ([]byte, error) {
	var knows instance
	if err := json.Unmarshal(later, &knows); err != nil {
		return nil, fmt.Errorf("read the later record: %w", err)
	}
	refused, found := knows.find(knows.Failure.Step)
	if !found || refused.Outcome != outcomeRefused {
		return nil, nil
	}
	if restored == nil {
		knows.State, knows.Steps, knows.Waiting = stateRunning, []step{refused}, nil
		knows.Failure.Step, knows.Failure.Message = "", ""
		knows.Requests, knows.Attempts = nil, nil
		return json.Marshal(&knows)
	}
	var known instance
	if err := json.Unmarshal(restored, &known); err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	if _, has := known.find(refused.Name); has || known.State != stateRunning {
		return nil, nil
	}
	known.Steps = append(known.Steps, refused)
	delete(known.Requests, refused.Name)
	known.Attempts = nil
	return json.Marshal(&known)
}
