package setup

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// leastServer is the oldest version of nats-server whose JetStream has what the platform
	// uses: batches that are stored together, and scheduled messages.
	leastServerMajor, leastServerMinor = 2, 12
	// leastPayload is the smallest max_payload with which the platform's own messages fit.
	leastPayload = 64 << 10
	// roleConsumers is the number of consumers that one process of a role may have: of
	// its tail of the journal, of the buckets that it follows, and of reads.
	roleConsumers = 64
)

// CheckLimits compares the limits of the NATS server and of the account with what the platform
// needs. warnings are what an operator should change; an error is a limit with which a process
// cannot work, or a failure to read the limits ([natsclient.Away]).
func CheckLimits(
	ctx context.Context, js jetstream.JetStream, replicas streams.Replicas,
) (warnings []string, err error) {
	conn := js.Conn()
	warnings, err = checkServer(conn.ConnectedServerVersion(), conn.MaxPayload())
	if err != nil {
		return nil, err
	}
	var info *jetstream.AccountInfo
	if err := natsclient.Patiently(ctx, func(ctx context.Context) (err error) {
		info, err = js.AccountInfo(ctx)
		return err
	}); err != nil {
		return nil, fmt.Errorf("setup: the account's limits: %w", err)
	}
	there := map[string]bool{}
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		there[name] = true
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("setup: the names of streams: %w", err)
	}
	missing := 0
	for _, definition := range streams.Definitions() {
		if !there[definition.Name] {
			missing++
		}
	}
	tier := info.Tier
	if len(info.Tiers) > 0 { // limits per number of replicas
		name := fmt.Sprintf("R%d", max(int(replicas), 1))
		var ok bool
		if tier, ok = info.Tiers[name]; !ok {
			return nil, fmt.Errorf(
				"setup: the NATS account has no limits for %d replicas (tier %s): set them, or change nats.replicas",
				replicas, name,
			)
		}
	}
	further, err := checkAccount(tier, missing)
	return append(warnings, further...), err
}

// checkServer is CheckLimits for the server.
func checkServer(version string, payload int64) (warnings []string, err error) {
	if major, minor, ok := versionOf(version); ok &&
		(major < leastServerMajor || major == leastServerMajor && minor < leastServerMinor) {
		return nil, fmt.Errorf("setup: the NATS server has version %s: %d.%d or newer is needed", version,
			leastServerMajor, leastServerMinor)
	}
	switch {
	case payload < leastPayload:
		return nil, fmt.Errorf(
			"setup: the NATS server's max_payload is %d bytes: at least %d are needed, and %d for the largest events",
			payload, leastPayload, streams.MaxMessageBytes,
		)
	case payload < streams.MaxMessageBytes:
		warnings = append(
			warnings,
			fmt.Sprintf(
				"the NATS server's max_payload is %d bytes: larger events and records are refused; set max_payload "+
					"to %d",
				payload, streams.MaxMessageBytes,
			),
		)
	}
	return warnings, nil
}

// versionOf returns the numbers of a server's version.
func versionOf(text string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(text, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil
}

// checkAccount is CheckLimits for the account, in which some of the streams are missing. Limits
// of -1 are none; NATS has 0 for none too.
func checkAccount(tier jetstream.Tier, missing int) (warnings []string, err error) {
	limits := tier.Limits
	refuse := func(format string, args ...any) ([]string, error) {
		return nil, fmt.Errorf("setup: the NATS account "+format, args...)
	}
	switch {
	case limits.MaxBytesRequired:
		return refuse(
			"requires max_bytes of each stream (max_bytes_required), which reserves disk: take the limit back",
		)
	case limits.MaxStreams > 0 && limits.MaxStreams-tier.Streams < missing:
		return refuse("may have %d streams and has %d, and needs %d more: raise max_streams to at least %d",
			limits.MaxStreams, tier.Streams, missing, tier.Streams+missing)
	case limits.MaxConsumers > 0 && limits.MaxConsumers < roleConsumers:
		return refuse("may have %d consumers: raise max_consumers to at least %d for each process", limits.MaxConsumers,
			roleConsumers)
	}
	if limits.MaxConsumers > 0 && limits.MaxConsumers-tier.Consumers < roleConsumers {
		warnings = append(
			warnings,
			fmt.Sprintf("the NATS account may have %d consumers and has %d: a process may need %d; raise max_consumers",
				limits.MaxConsumers, tier.Consumers, roleConsumers),
		)
	}
	if limits.MaxStore > 0 && tier.Store > uint64(limits.MaxStore)/10*9 {
		warnings = append(
			warnings,
			fmt.Sprintf("the NATS account may store %d bytes and stores %d: appends will be refused; raise max_storage",
				limits.MaxStore, tier.Store),
		)
	}
	return warnings, nil
}
