package journal

import (
	"strconv"
	"strings"
)

// ModelRef names the model by which an event was decided.
type ModelRef struct {
	// Revision is the model's; "": the event was appended by a version that did not note it.
	Revision string
	// Order is its place among the platform's models, see [models.Store.Place].
	Order uint64
	// FromFile reports that the model was not applied.
	FromFile bool

	header []string // the value of ceModel
}

// NewModelRef returns the reference to a model.
func NewModelRef(revision string, order uint64, fromFile bool) ModelRef {
	kind := "applied"
	if fromFile {
		kind = "file"
	}
	return ModelRef{revision, order, fromFile, []string{revision + ";" + kind + "=" + strconv.FormatUint(order, 10)}}
}

// parseModelRef reads a reference; the zero value for a text that it does not understand, which a
// later version may write.
func parseModelRef(text string) ModelRef {
	revision, place, _ := strings.Cut(text, ";")
	kind, number, _ := strings.Cut(place, "=")
	order, err := strconv.ParseUint(number, 10, 64)
	if err != nil || revision == "" || kind != "applied" && kind != "file" {
		return ModelRef{}
	}
	return ModelRef{Revision: revision, Order: order, FromFile: kind == "file"}
}
