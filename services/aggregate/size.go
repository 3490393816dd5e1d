package aggregate

import (
	"fmt"

	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
)

const (
	// maxStateBytes bounds the state that a command may result in, measured as a response contains it. Larger states,
	// which earlier versions allowed, can be read, and commands may shrink them.
	maxStateBytes = 4 << 20
	// Estimates of memory, in bytes.
	instanceBytes = 1 << 10 // an aggregate without a state
	memberBytes   = 56      // an object's member without its name and value
	elementBytes  = 16      // an element of a list
	valueBytes    = 16      // a string header, or a number
)

// stateSizeError rejects a command that would make an aggregate's state larger than maxStateBytes.
type stateSizeError struct{ bytes int }

func (e *stateSizeError) Error() string {
	return fmt.Sprintf("the command would make the aggregate's state %d bytes large; the limit is %d", e.bytes,
		maxStateBytes)
}

// checkStateSize rejects a state that is too large, unless it is not larger than the one before.
func checkStateSize(before, after model.Object) error {
	bytes := response.Object(after)
	if bytes <= maxStateBytes || bytes <= response.Object(before) {
		return nil
	}
	return &stateSizeError{bytes}
}

// roundedError rejects a command that would store an integer which JSON responses would round.
type roundedError struct{ place string }

func (e *roundedError) Error() string {
	return fmt.Sprintf("the command would set %s to an integer that JSON cannot represent exactly (above 2^53)",
		e.place)
}

// checkIntegers rejects event data, or a state, with an integer that JSON would round. A state is accepted if the one
// before has such an integer too.
func checkIntegers(what string, before, after model.Object) error {
	place, found := model.Rounded(after)
	if !found {
		return nil
	}
	if _, found := model.Rounded(before); found {
		return nil
	}
	return &roundedError{what + "." + place}
}

// resident estimates the memory of the instance in bytes.
func (i *instance) resident() int64 {
	return int64(instanceBytes + resident(i.state) + i.log.Size())
}

// resident estimates the memory of a value in bytes.
func resident(value any) int {
	bytes := valueBytes
	switch value := value.(type) {
	case string:
		bytes += len(value)
	case []any:
		for _, element := range value {
			bytes += elementBytes + resident(element)
		}
	case model.Object:
		for name, member := range value {
			bytes += memberBytes + len(name) + resident(member)
		}
	}
	return bytes
}
