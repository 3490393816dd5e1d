package natshealth_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/natstest"
)

// While a leader that does not answer is replaced, publishes are lost, and the next leader answers questions
// immediately. That is no full disk; publishes after its answer that are not acknowledged are.
func TestStorage_ReplacedLeaderIsNoFullDisk(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host:   "127.0.0.1",
		Port:   server.RANDOM_PORT,
		NoSigs: true,
		NoLog:  true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	dial := func() *nats.Conn {
		conn, err := natsclient.Connect(s.ClientURL(), t.Name())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	conn := dial()
	// The test is JetStream: a stream whose leader is replaced once two messages are lost.
	var acknowledges, replaced atomic.Bool
	var cluster atomic.Pointer[string] // as the leader reports it
	alone := `{}`
	cluster.Store(&alone)
	var received atomic.Int64
	asked := make(chan struct{}, 16)
	for subject, answer := range map[string]func(*nats.Msg) error{
		"$JS.API.STREAM.INFO.KV_nodes": func(m *nats.Msg) error {
			defer func() { asked <- struct{}{} }()
			if !replaced.Load() {
				return nil
			}
			return m.Respond([]byte(`{"cluster":` + *cluster.Load() + `}`))
		},
		"$KV.nodes.>": func(m *nats.Msg) error {
			replaced.Store(received.Add(1) > 1)
			if acknowledges.Load() {
				return m.Respond([]byte(`{"stream":"KV_nodes","seq":1}`))
			}
			return nil
		},
	} {
		if _, err := conn.Subscribe(subject, func(m *nats.Msg) {
			if err := answer(m); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	plain, err := jetstream.New(dial())
	if err != nil {
		t.Fatal(err)
	}
	lines := make(natstest.Lines, 64)
	js := natshealth.NewStorage(zerolog.New(lines)).Observe(plain)
	announce := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 950*time.Millisecond)
		defer cancel()
		_, err := js.PublishMsg(ctx, &nats.Msg{Subject: "$KV.nodes.a.b"})
		return err
	}
	for range 2 {
		if err := announce(); err == nil {
			t.Fatal("an announcement is stored")
		}
	}
	natstest.Await(t, asked, "the stream is asked")
	acknowledges.Store(true)
	if err := announce(); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-lines:
		t.Fatalf("a change of the leader is reported: %s", line)
	default:
	}
	acknowledges.Store(false)
	// A leader that was deposed, and is isolated, answers too until it notices.
	for _, deposed := range []string{
		`{"leader":"n1","replicas":[{"name":"n2","active":4000000000},{"name":"n3","active":5000000000}]}`,
		`{"leader":"n1","replicas":[{"name":"n2","offline":true},{"name":"n3","offline":true}]}`,
	} {
		cluster.Store(&deposed)
		for range 3 {
			if err := announce(); err == nil {
				t.Fatal("an announcement is stored")
			}
		}
	}
	select {
	case line := <-lines:
		t.Fatalf("a deposed leader is reported: %s", line)
	default:
	}
	whole := `{"leader":"n2","replicas":[{"name":"n1","offline":true},{"name":"n3","active":1000000}]}`
	cluster.Store(&whole)
	for range 3 {
		if err := announce(); err == nil {
			t.Fatal("an announcement is stored")
		}
	}
	if line := lines.Await(t, "stores nothing"); !strings.Contains(line, "no_ack") {
		t.Error(line)
	}
}
