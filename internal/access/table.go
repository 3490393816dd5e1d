package access

import (
	"slices"

	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// rights are what a role may do.
type rights struct {
	// requests are further subjects of the JetStream API.
	requests []string
	// describes are streams whose state the role reads, gets those whose messages it reads, and
	// follows those of which it has consumers.
	describes, gets, follows []string
	// lists are streams whose consumers the role lists. Others do not know the names of consumers of other
	// readers, which are random, and so cannot change or delete them.
	lists []string
	// keys are single keys of buckets that the role reads.
	keys map[string][]string
	// removes are streams of which the role deletes single messages, and purges those whose subjects
	// it empties.
	removes, purges []string
	// writes are the subjects of messages. {kind} and {id} are the node's.
	writes []string
	// subscribes are subjects that the role receives when they are published.
	subscribes []string
}

// buckets returns the streams of buckets.
func buckets(names ...string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = streams.BucketStream(name)
	}
	return all
}

// put returns the subject of a bucket's keys.
func put(bucket, keys string) string { return "$KV." + bucket + "." + keys }

// member is what all of the platform's nodes may do: check the streams, announce themselves and
// follow the other nodes, models and decisions about tenants, and record spans of timelines.
var member = rights{
	requests: []string{"INFO", "STREAM.NAMES", "STREAM.LIST"},
	describes: slices.DeleteFunc(setup.StreamNames(),
		func(name string) bool { return name == streams.BucketStream(streams.BucketSecrets) }),
	gets: buckets(streams.BucketNodes, streams.BucketServed, streams.BucketModels, streams.BucketTenants,
		streams.BucketPlacement, streams.BucketDrains),
	follows: buckets(streams.BucketNodes, streams.BucketModels, streams.BucketTenants, streams.BucketPlacement,
		streams.BucketDrains),
	writes: []string{
		put(streams.BucketNodes, "{kind}.{id}"), put(streams.BucketServed, "*.{id}"),
		"timeline.*.*", "timeline.*.*.*.*",
	},
	subscribes: []string{put(streams.BucketNodes, ">"), fleet.ForeignNodes},
}

// service is what nodes that serve the model may do beside member: read the journal, and record
// what they know of it, the place of a model from a file, and calls that have not passed a gateway.
var service = member.with(rights{
	gets:    append(buckets(streams.BucketJournal, streams.BucketNonEvents), streams.Events),
	follows: buckets(streams.BucketJournal),
	keys:    map[string][]string{streams.BucketSecrets: {kv.SecretTokens}},
	writes:  append(audits(auditlog.ClassDirect), put(streams.BucketJournal, ">"), put(streams.BucketModels, "file.*")),
})

// audits returns the subjects of the audit records of classes, of all accounts.
func audits(classes ...auditlog.Class) []string {
	subjects := make([]string, len(classes))
	for i, class := range classes {
		subjects[i] = auditlog.Subject("*", class)
	}
	return subjects
}

// table has the rights of each role.
var table = map[Role]rights{
	Gateway: member.with(rights{
		keys:    map[string][]string{streams.BucketSecrets: {kv.SecretTickets, kv.SecretCredentials}},
		gets:    buckets(streams.BucketRevocations, streams.BucketAPIKeys),
		follows: buckets(streams.BucketRevocations, streams.BucketAPIKeys),
		writes:  audits(auditlog.GatewayClasses()...),
	}),
	Aggregate: service.with(rights{
		gets:    buckets(streams.BucketIdempotency, streams.BucketSnapshots, streams.BucketUsage),
		follows: append(buckets(streams.BucketUsage), streams.Events), // for subscriptions of clients
		writes: []string{
			"events.*.*.>",
			put(streams.BucketIdempotency, ">"), put(streams.BucketSnapshots, ">"), put(streams.BucketUsage, ">"),
		},
	}),
	Projection: service.with(rights{
		gets:    buckets(streams.BucketSkips),
		follows: append(buckets(streams.BucketSkips), streams.Events),
	}),
	Runner: service.with(rights{
		gets: append(buckets(runnerBuckets...), streams.Work, streams.DeadLetters),
		follows: append(buckets(append(slices.Clone(runnerBuckets), streams.BucketServed)...), streams.Events,
			streams.Work),
		lists:   []string{streams.Events, streams.Work}, // consumers of tenants that are gone
		removes: []string{streams.Work, streams.DeadLetters},
		purges:  []string{streams.Work},
		writes: append(puts(runnerBuckets...),
			"work.*.*.*", "later.*.*.*", "retry.*.*.*", "deadletters.*"),
	}),
	Control: service.with(rights{
		keys: map[string][]string{streams.BucketSecrets: {kv.SecretTokens, kv.SecretCredentials}},
		gets: append(buckets(append(slices.Clone(controlBuckets), streams.BucketUsage)...), streams.Audit,
			streams.Timeline),
		follows: append(buckets(append(slices.Clone(controlBuckets), streams.BucketServed)...), streams.Audit),
		writes:  puts(controlBuckets...),
	}),
	// No stream has this subject: nothing answers the user, at a reply subject that it chooses.
	Foreign: {
		writes: []string{fleet.ForeignSubject("{kind}", "{id}")},
	},
	Setup: {
		requests:  []string{">"},
		describes: nil,
		writes: []string{
			"$KV.>", "$JS.ACK.>", "$JS.FC.>", "events.>", "audit.>", "work.>", "later.>", "retry.>", "deadletters.>",
			"timeline.>", "restoring", "$JS.SNAPSHOT.RESTORE.>",
		},
		subscribes: []string{put(streams.BucketNodes, ">")},
	},
	Backup: {
		requests:   []string{"INFO", "STREAM.NAMES", "STREAM.LIST", "CONSUMER.LIST.*", "CONSUMER.NAMES.*"},
		describes:  []string{"*"},
		gets:       []string{"*"},
		follows:    []string{"*"},
		subscribes: nil,
	},
}

var (
	// runnerBuckets have the state of workflows, which runners alone write.
	runnerBuckets = []string{
		streams.BucketInstances, streams.BucketWorkflows, streams.BucketRunner, streams.BucketRevisions,
		streams.BucketLeases, streams.BucketCursors,
	}
	// controlBuckets have the decisions of operators, which control alone writes.
	controlBuckets = []string{
		streams.BucketPlacement, streams.BucketTenants, streams.BucketModels, streams.BucketMoves, streams.BucketDrains,
		streams.BucketSkips, streams.BucketNonEvents, streams.BucketRevocations, streams.BucketAPIKeys,
	}
)

// puts returns the subjects of all keys of buckets.
func puts(buckets ...string) []string {
	subjects := make([]string, len(buckets))
	for i, bucket := range buckets {
		subjects[i] = put(bucket, ">")
	}
	return subjects
}

// with returns r and further rights.
func (r rights) with(further rights) rights {
	join := func(a, b []string) []string { return append(append([]string(nil), a...), b...) }
	keys := further.keys
	if keys == nil {
		keys = r.keys
	}
	return rights{
		requests:   join(r.requests, further.requests),
		describes:  join(r.describes, further.describes),
		gets:       join(r.gets, further.gets),
		follows:    join(r.follows, further.follows),
		lists:      join(r.lists, further.lists),
		keys:       keys,
		removes:    join(r.removes, further.removes),
		purges:     join(r.purges, further.purges),
		writes:     join(r.writes, further.writes),
		subscribes: join(r.subscribes, further.subscribes),
	}
}

// api begins the subjects of the JetStream API.
const api = "$JS.API."

// subjects returns the subjects that the role publishes to.
func (r rights) subjects() []string {
	subjects := append([]string(nil), r.writes...)
	for _, request := range r.requests {
		subjects = append(subjects, api+request)
	}
	for _, stream := range r.describes {
		subjects = append(subjects, api+"STREAM.INFO."+stream)
	}
	for _, stream := range r.gets {
		subjects = append(subjects, api+"STREAM.INFO."+stream, api+"STREAM.MSG.GET."+stream, api+"DIRECT.GET."+stream,
			api+"DIRECT.GET."+stream+".>")
	}
	for bucket, names := range r.keys {
		for _, name := range names {
			subjects = append(subjects, api+"DIRECT.GET."+streams.BucketStream(bucket)+"."+put(bucket, name))
		}
	}
	for _, stream := range r.follows {
		subjects = append(subjects,
			api+"CONSUMER.CREATE."+stream+".>", api+"CONSUMER.DELETE."+stream+".*", api+"CONSUMER.INFO."+stream+".*",
			api+"CONSUMER.MSG.NEXT."+stream+".*",
			"$JS.ACK."+stream+".>", "$JS.FC."+stream+".>")
	}
	for _, stream := range r.lists {
		subjects = append(subjects, api+"CONSUMER.LIST."+stream, api+"CONSUMER.NAMES."+stream)
	}
	for _, stream := range r.removes {
		subjects = append(subjects, api+"STREAM.MSG.DELETE."+stream)
	}
	for _, stream := range r.purges {
		subjects = append(subjects, api+"STREAM.PURGE."+stream)
	}
	return subjects
}
