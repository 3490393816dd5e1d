package auditlog_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natstest"
)

// Many records of one class do not hide those of another, whichever page they are on.
func TestAuditRecords_PagesHoldAllClasses(t *testing.T) {
	js := natstest.Start(t)
	const denials = 2300
	for i := range denials {
		class := auditlog.ClassDenied
		if i%100 == 0 {
			class = auditlog.ClassOperator
		}
		data, err := json.Marshal(auditlog.Record{Procedure: fmt.Sprint(i)})
		if err == nil {
			_, err = js.PublishAsync(auditlog.Subject("acme", class), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	natstest.Await(t, js.PublishAsyncComplete(), "all records are stored")
	want := denials - 1
	for before, first := uint64(0), true; first || before != 0; first = false {
		page := 0
		next, err := auditlog.Read(t.Context(), js, "acme", before, func(record auditlog.Record, _ time.Time) bool {
			if page == 333 {
				return false
			}
			page++
			if record.Procedure != fmt.Sprint(want) {
				t.Fatalf("record %s, want %d", record.Procedure, want)
			}
			want--
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		before = next
	}
	if want != -1 {
		t.Errorf("the records from %d down are missing", want)
	}
}
