package model

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Fingerprint identifies what the view's rows are made from: the columns, the key, the effect of each event, and the
// upcasts of those events. Descriptions, indexes, the order of columns, and the rest of the model do not change it.
// It is stable between processes.
func (v *View) Fingerprint() uint64 { return v.fingerprint }

// fingerprintOf computes a view's fingerprint.
func (m *Model) fingerprintOf(v *View) uint64 {
	h := sha256.New()
	line := func(parts ...any) {
		for _, part := range parts {
			text := fmt.Sprint(part)
			_, _ = fmt.Fprintf(h, "%d:%s,", len(text), text) // writing to a hash cannot fail
		}
		_, _ = io.WriteString(h, ";")
	}
	columns := slices.SortedFunc(slices.Values(v.Columns),
		func(a, b Column) int { return strings.Compare(a.Name, b.Name) })
	for _, column := range columns {
		line("column", column.Name, column.Type)
	}
	line("key", v.key.sourceText())
	refs := slices.SortedFunc(maps.Keys(v.on), func(a, b EventRef) int {
		return strings.Compare(a.Aggregate+"."+a.Event, b.Aggregate+"."+b.Event)
	})
	for _, ref := range refs {
		change := v.on[ref]
		line("on", ref.Aggregate, ref.Event, change.kind)
		for _, member := range change.values {
			line("value", member.name, member.expr.sourceText())
		}
		for _, f := range change.folds {
			line("fold", f.column.Name, f.kind, f.expr.sourceText())
		}
		aggregate, ok := m.aggregates[ref.Aggregate]
		if !ok {
			continue
		}
		for _, step := range aggregate.history[ref.Event].upcasts {
			line("upcast", step.drop)
			for _, member := range step.set {
				line("set", member.name, member.expr.sourceText())
			}
		}
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}
