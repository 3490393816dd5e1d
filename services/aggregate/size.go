package aggregate

import (
	"fmt"

	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
)

const (
	// maxStateBytes bounds the state that a command may make, as an answer has it. States
	// beyond it, which earlier versions allowed, can be read, and commands may make them
	// smaller.
	maxStateBytes = 4 << 20
	// Estimates of memory, in bytes.
	instanceBytes = 1 << 10 // of an aggregate without a state
	answerBytes   = 320     // of a command that is remembered, with its key
	pageBytes     = 64      // of a page without its hashes and answers
	memberBytes   = 56      // of an object's member without its name and value
	elementBytes  = 16      // of a list's element
	valueBytes    = 16      // of a text's header, or a number
)

// stateSizeError is the error of a command that would make an aggregate's state larger than
// maxStateBytes.
type stateSizeError struct{ bytes int }

func (e *stateSizeError) Error() string {
	return fmt.Sprintf("the command would make the aggregate's state %d bytes large; a state has at most %d", e.bytes, maxStateBytes)
}

// boundState refuses a state that is too large, unless it is not larger than the one before.
func boundState(before, after model.Object) error {
	bytes := response.Object(after)
	if bytes <= maxStateBytes || bytes <= response.Object(before) {
		return nil
	}
	return &stateSizeError{bytes}
}

// roundedError is the error of a command that would make an integer which answers, in JSON,
// would round.
type roundedError struct{ place string }

func (e *roundedError) Error() string {
	return fmt.Sprintf("the command would make %s an integer that JSON does not represent exactly (above 2^53)", e.place)
}

// boundIntegers refuses an event's data, or a state, with an integer that JSON would round; of a
// state, unless the one before has one too.
func boundIntegers(what string, before, after model.Object) error {
	place, found := model.Rounded(after)
	if !found {
		return nil
	}
	if _, found := model.Rounded(before); found {
		return nil
	}
	return &roundedError{what + "." + place}
}

// resident estimates the bytes of memory that the instance takes.
func (i *instance) resident() int64 {
	bytes := instanceBytes + resident(i.state) + answerBytes*i.recent.Len() + 8*len(i.chapters)
	for _, p := range i.pages {
		bytes += pageBytes + 4*len(p.hashes) + answerBytes*len(p.answers)
	}
	return int64(bytes)
}

// resident estimates the bytes of memory that a value takes.
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
