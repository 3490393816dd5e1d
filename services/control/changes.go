package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/fleet"
)

// maxChangedValue bounds a value of a change, in bytes.
const maxChangedValue = 96

// stateChanges sets the response header in which the gateway finds the changes of a call for its audit record. Changes
// between equal values are omitted.
func stateChanges(ctx context.Context, changes ...auditlog.Change) {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return
	}
	var out []auditlog.Change
	for _, change := range changes {
		if change.Before != change.After {
			change.Before, change.After = ascii(change.Before), ascii(change.After)
			out = append(out, change)
		}
	}
	if text, err := json.Marshal(out); err == nil && len(out) > 0 {
		info.ResponseHeader().Set(contextkit.HeaderChanges, string(text))
	}
}

// ascii returns the beginning of a text, with escapes in place of characters that a header cannot have.
func ascii(text string) string {
	quoted := strconv.QuoteToASCII(excerpt.Text(text, maxChangedValue))
	return quoted[1 : len(quoted)-1]
}

// tenantChanges returns what differs between two states of a tenant.
func tenantChanges(before, after fleet.Tenant) []auditlog.Change {
	changes := []auditlog.Change{
		{Name: "suspended", Before: fmt.Sprint(before.Suspended), After: fmt.Sprint(after.Suspended)},
		{Name: "reason", Before: before.Reason, After: after.Reason},
	}
	var rates [2]fleet.Quota
	var stored [2]fleet.StorageQuota
	for n, tenant := range []fleet.Tenant{before, after} {
		if tenant.Quota != nil {
			rates[n] = *tenant.Quota
		}
		if tenant.Storage != nil {
			stored[n] = *tenant.Storage
		}
	}
	for _, one := range []struct {
		name          string
		before, after float64
	}{
		{"quota.rate", rates[0].Rate, rates[1].Rate},
		{"quota.burst", float64(rates[0].Burst), float64(rates[1].Burst)},
		{"quota.concurrent", float64(rates[0].Concurrent), float64(rates[1].Concurrent)},
		{"quota.streams", float64(rates[0].Streams), float64(rates[1].Streams)},
		{"storage_quota.events", float64(stored[0].Events), float64(stored[1].Events)},
		{"storage_quota.bytes", float64(stored[0].Bytes), float64(stored[1].Bytes)},
		{"storage_quota.aggregates", float64(stored[0].Aggregates), float64(stored[1].Aggregates)},
		{"storage_quota.keys", float64(stored[0].Keys), float64(stored[1].Keys)},
	} {
		changes = append(changes, auditlog.Change{
			Name:   one.name,
			Before: limitText(one.before),
			After:  limitText(one.after),
		})
	}
	return changes
}

// limitText returns a limit as text, "" for 0: the settings apply.
func limitText(limit float64) string {
	if limit == 0 {
		return ""
	}
	return strconv.FormatFloat(limit, 'f', -1, 64)
}
