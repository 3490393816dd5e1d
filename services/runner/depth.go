package runner

import (
	"errors"
	"fmt"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/model"
)

// defaultMaxDepth bounds a chain of workflows that start each other.
const defaultMaxDepth = 100

// errDepth says that an event is the end of a chain of workflows that is too long.
var errDepth = errors.New("workflows start each other without end")

// admitDepth returns [errDepth] if a workflow would be one too many in the chain of the event's
// causes.
func (e *engine) admitDepth(workflow *model.Workflow, event backbone.Event) error {
	if event.Context.Depth < e.maxDepth {
		return nil
	}
	return fmt.Errorf("%w: the event is caused by %d workflows, one after the other, and does not start %q. "+
		"Correct the model so that the chain ends, for example by a condition (`when`), and discard the letter", errDepth, event.Context.Depth, workflow.Name)
}
