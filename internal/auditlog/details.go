package auditlog

import (
	"encoding/json"

	"github.com/headgate/headgate/internal/excerpt"
)

const (
	// maxFields bounds the fields and the changes of a record, maxValue the bytes of a name or a value, maxList those
	// of the values of a list, and maxFieldBytes and maxChangeBytes all of them as JSON.
	maxFields, maxValue, maxList  = 24, 96, 1536
	maxFieldBytes, maxChangeBytes = 1792, 512
	// maxRecord bounds a record as JSON: its details get what its other texts leave.
	maxRecord = 4 << 10
)

// boundedDetails returns the record with as many fields and changes as it may have.
func (r Record) boundedDetails() Record {
	if len(r.Request)+len(r.Changes) == 0 {
		return r
	}
	bare := r
	bare.Request, bare.Changes, bare.Truncated = nil, nil, true
	data, err := json.Marshal(bare)
	room := maxRecord - len(data) - len(`"request":[],"changes":[],`)
	if err != nil || room < 0 {
		return bare
	}
	var cut [2]bool
	changeBytes := min(maxChangeBytes, room/2)
	r.Request, cut[0] = bounded(r.Request, min(maxFieldBytes, room-changeBytes), func(f *Field) {
		f.Name = excerpt.Text(f.Name, maxValue)
		if f.Value != nil {
			bound := maxValue
			if f.List {
				bound = maxList
			}
			value := excerpt.Text(*f.Value, bound)
			f.Value = &value
		}
	})
	r.Changes, cut[1] = bounded(r.Changes, changeBytes, func(c *Change) {
		c.Name, c.Before, c.After = excerpt.Text(c.Name, maxValue), excerpt.Text(c.Before, maxValue),
			excerpt.Text(c.After, maxValue)
	})
	r.Truncated = r.Truncated || cut[0] || cut[1]
	return r
}

// bounded returns the elements of all that fit into size bytes of JSON, each after shorten and the first ones first,
// and whether there are more. A large one leaves out no small one after it.
func bounded[T any](all []T, size int, shorten func(*T)) (some []T, more bool) {
	for _, one := range all {
		shorten(&one)
		data, err := json.Marshal(one)
		if err != nil || len(data)+1 > size || len(some) == maxFields {
			more = true
			continue
		}
		size -= len(data) + 1
		some = append(some, one)
	}
	return some, more
}
