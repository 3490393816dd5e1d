package events

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/journal"
)

// What is reserved for an event is no less than what it takes in memory.
func TestWeight_BoundsTheMemoryOfAnEvent(t *testing.T) {
	list := func(element string, n int) string {
		return `{"a":[` + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + `]}`
	}
	wide := strings.Builder{}
	wide.WriteString(`{"a":{"":0`)
	for n := range 20_000 {
		fmt.Fprintf(&wide, `,"%x":0`, n)
	}
	wide.WriteString(`}}`)
	for name, data := range map[string]string{
		"wide":    wide.String(),
		"numbers": list("0", 20_000),
		"nulls":   list("null", 20_000),
		"lists":   list("[]", 20_000),
		"objects": list("{}", 20_000),
		"members": list(`{"a":1}`, 20_000),
		"texts":   list(`""`, 20_000),
		"text":    `{"a":"` + strings.Repeat("x", 1<<19) + `"}`,
		"escapes": `{"a":"` + strings.Repeat(`\u00e4`, 1<<16) + `"}`,
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		made, ok := structOf([]byte(data))
		runtime.GC()
		runtime.ReadMemStats(&after)
		took := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		if weight := weightOf(journal.Message{Data: []byte(data)}); !ok || took > int64(weight) {
			t.Errorf("%s: %d bytes of data (a Struct: %v) take %d bytes, and weigh %d", name, len(data), ok, took,
				weight)
		}
		runtime.KeepAlive(made)
	}
}
