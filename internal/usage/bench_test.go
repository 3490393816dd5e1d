package usage_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/usage"
)

// BenchmarkAdmitAndAdd is what a command pays: with a quota, and for a tenant without one.
func BenchmarkAdmitAndAdd(b *testing.B) {
	for name, quota := range map[string]fleet.StorageQuota{
		"quota": {Events: 1 << 50, Bytes: 1 << 50, Aggregates: 1 << 50, Keys: 1 << 50}, "none": {},
	} {
		b.Run(name, func(b *testing.B) {
			js := natstest.Start(b)
			journal, err := journal.Open(b.Context(), js)
			if err != nil {
				b.Fatal(err)
			}
			m, err := usage.Open(b.Context(), js, journal, usage.Config{Quota: quota, Flush: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			acme := natstest.Tenant(b, "acme")
			add := usage.Counts{Events: 1, Bytes: 1500, Keys: 1}
			b.ReportAllocs()
			for b.Loop() {
				held, err := m.Admit(acme, add, false)
				if err != nil {
					b.Fatal(err)
				}
				m.Add(acme, add)
				held.Release()
			}
		})
	}
}
