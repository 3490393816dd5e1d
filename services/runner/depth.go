package runner

import (
	"errors"
	"fmt"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/model"
)

// defaultMaxDepth bounds a chain of workflows that start each other.
const defaultMaxDepth = 100

// errDepth reports that a chain of workflows that start each other is too long.
var errDepth = errors.New("workflows start each other in an endless chain")

// admitDepth returns [errDepth] if a workflow would exceed the bound on the chain of the event's causes.
func (e *engine) admitDepth(workflow *model.Workflow, event journal.Event) error {
	if event.Context.Depth < e.maxDepth {
		return nil
	}
	return fmt.Errorf("%w: the event is caused by a chain of %d workflows, and does not start %q. "+
		"Correct the model so that the chain ends, for example with a condition (`when`), and discard the letter",
		errDepth, event.Context.Depth, workflow.Name)
}
