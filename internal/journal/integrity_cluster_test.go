package journal_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// TestIntegrity_FaultsOfAClusterAreNoDamage changes leaders, stops a replica while events are
// appended, and restarts each of three servers in turn, while journals are checked.
func TestIntegrity_FaultsOfAClusterAreNoDamage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("restarts three servers, takes half a minute")
	}
	servers, options := natsClusterOf(t)
	js := natstest.Connect(t, servers...)
	acme := natstest.Tenant(t, "acme")
	ctx, cancel := context.WithTimeout(contextkit.TenantContext(t.Context(), acme), 3*time.Minute)
	defer cancel()
	eventLog, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	watched, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	alarms := make(chan *journal.Damage, 1)
	go func() { done <- eventLog.Integrity().Run(watched, true, zerolog.Nop()) }()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		for {
			changed := eventLog.Integrity().Changed()
			if damage := eventLog.Integrity().Damage(); damage != nil {
				select {
				case alarms <- damage:
				default:
				}
			}
			select {
			case <-changed:
			case <-watched.Done():
				return
			}
		}
	}()
	defer func() {
		stop()
		<-followed
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	appended := 0
	checked := func(what string) {
		t.Helper()
		for end := appended + 20; appended < end; {
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := eventLog.Append(attempt, acme, 0, eventsOf(fmt.Sprintf("w%d", appended), 1, 1))
			cancel()
			if ctx.Err() != nil {
				t.Fatal(what, err)
			}
			appended++ // stored, unknown or a conflict with the former attempt: the next wallet
		}
		err := journal.Check(contextkit.PlatformContext(ctx), eventLog) // it records the tail
		for err != nil && ctx.Err() == nil {
			err = journal.Check(contextkit.PlatformContext(ctx), eventLog)
		}
		if err != nil {
			t.Fatal(what, err)
		}
		other, err := journal.Open(ctx, js) // as a node that starts
		for err != nil && ctx.Err() == nil {
			other, err = journal.Open(ctx, js)
		}
		if err != nil {
			t.Fatal(what, err)
		}
		for _, j := range []*journal.Journal{eventLog, other} {
			if damage := j.Integrity().Damage(); damage != nil {
				t.Fatalf("%s: %v", what, damage)
			}
		}
		select {
		case damage := <-alarms:
			t.Fatalf("%s: %v", what, damage)
		default:
		}
	}
	checked("at the start")
	for round := range 3 {
		if _, err := js.Conn().RequestWithContext(
			ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+streams.Events, nil,
		); err != nil {
			t.Fatal(err)
		}
		checked(fmt.Sprintf("after change %d of the leader", round))
	}
	for n := range servers {
		servers[n].Shutdown()
		servers[n].WaitForShutdown()
		checked(fmt.Sprintf("without server %d", n))
		servers[n] = natstest.Server(t, options[n])
		checked(fmt.Sprintf("with server %d back, lagging", n))
		inStep(ctx, t, js)
		checked(fmt.Sprintf("with server %d in step", n))
	}
}

// inStep waits until every replica of the journal has all of it, so that another may be stopped.
func inStep(ctx context.Context, t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for {
		stream, err := js.Stream(ctx, streams.Events)
		if err == nil && stream.CachedInfo().Cluster != nil {
			current := 0
			for _, replica := range stream.CachedInfo().Cluster.Replicas {
				if replica.Current && !replica.Offline {
					current++
				}
			}
			if current == 2 {
				return
			}
		}
		if ctx.Err() != nil {
			t.Fatal("the replicas are not in step: ", err)
		}
	}
}

// natsClusterOf is natsCluster with the options by which each server can be started again.
func natsClusterOf(t *testing.T) (servers []*server.Server, options []*server.Options) {
	t.Helper()
	for _, s := range natsCluster(t) {
		again := &server.Options{
			ServerName: s.Name(),
			Port:       natstest.Port(t, s),
			StoreDir:   s.StoreDir(),
			Cluster:    server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: s.ClusterAddr().Port},
		}
		servers, options = append(servers, s), append(options, again)
	}
	for _, o := range options {
		for _, other := range options {
			o.Routes = append(o.Routes, server.RoutesFromStr(fmt.Sprintf("nats://127.0.0.1:%d", other.Cluster.Port))...)
		}
	}
	return servers, options
}
