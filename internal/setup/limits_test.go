package setup

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/streams"
)

func TestCheckLimits_NamesInsufficientLimits(t *testing.T) {
	tier := func(change func(*jetstream.Tier)) jetstream.Tier {
		tier := jetstream.Tier{Streams: 3, Consumers: 10, Store: 1000}
		tier.Limits = jetstream.AccountLimits{MaxStore: -1, MaxStreams: -1, MaxConsumers: -1}
		change(&tier)
		return tier
	}
	for name, c := range map[string]struct {
		tier            jetstream.Tier
		warning, refuse string
	}{
		"no limits":        {tier(func(*jetstream.Tier) {}), "", ""},
		"zero is no limit": {tier(func(t *jetstream.Tier) { t.Limits = jetstream.AccountLimits{} }), "", ""},
		"enough streams":   {tier(func(t *jetstream.Tier) { t.Limits.MaxStreams = 13 }), "", ""},
		"too few streams": {
			tier(func(t *jetstream.Tier) { t.Limits.MaxStreams = 12 }), "",
			"may have 12 streams and has 3, and needs 10 more: raise max_streams to at least 13",
		},
		"too few consumers": {
			tier(func(t *jetstream.Tier) { t.Limits.MaxConsumers = 63 }), "", "may have 63 consumers",
		},
		"few remaining consumers": {
			tier(func(t *jetstream.Tier) { t.Limits.MaxConsumers = 70 }), "may have 70 consumers and has 10", "",
		},
		"storage nearly full": {
			tier(func(t *jetstream.Tier) { t.Limits.MaxStore = 1100 }), "may store 1100 bytes and stores 1000", "",
		},
		"reservations": {
			tier(func(t *jetstream.Tier) { t.Limits.MaxBytesRequired = true }), "", "max_bytes_required",
		},
	} {
		warnings, err := checkAccount(c.tier, 10)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if all := strings.Join(warnings, "; "); !strings.Contains(all, c.warning) || (all == "") != (c.warning == "") ||
			!strings.Contains(text, c.refuse) || (text == "") != (c.refuse == "") {
			t.Errorf("%s: warnings %q, error %v", name, warnings, err)
		}
	}
	for _, c := range []struct {
		version         string
		payload         int64
		warning, refuse string
	}{
		{"2.15.2", streams.MaxMessageBytes, "", ""},
		{"3.0.0-preview.1", streams.MaxMessageBytes, "", ""},
		{"dev", streams.MaxMessageBytes, "", ""},
		{"2.11.9", streams.MaxMessageBytes, "", "has version 2.11.9: 2.12 or newer"},
		{"2.12.0", 1 << 20, "max_payload is 1048576 bytes", ""},
		{"2.12.0", 1 << 10, "", "max_payload is 1024 bytes"},
	} {
		warnings, err := checkServer(c.version, c.payload)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if all := strings.Join(warnings, "; "); !strings.Contains(all, c.warning) || (all == "") != (c.warning == "") ||
			!strings.Contains(text, c.refuse) || (text == "") != (c.refuse == "") {
			t.Errorf("version %s, payload %d: warnings %q, error %v", c.version, c.payload, warnings, err)
		}
	}
}
