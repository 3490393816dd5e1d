package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/format"
)

// newerDir creates a directory whose format is newer than any.
func newerDir(t *testing.T, dir string) {
	t.Helper()
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, format.File), []byte(`{"format":97,"floor":97,"writer":"v9.7.0"}`), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDev_RejectsDirectoriesOfNewerFormats(t *testing.T) {
	for _, newer := range []string{".", "views"} {
		data := t.TempDir()
		newerDir(t, filepath.Join(data, newer))
		config := DevConfig{
			Data:     data,
			Tenants:  []string{"acme"},
			LogLevel: "error",
			LazySync: true,
		}
		for _, addr := range []*string{
			&config.Listen, &config.GRPCListen, &config.AdminListen, &config.AggregateListen, &config.ProjectionListen,
			&config.ControlListen, &config.RunnerListen,
		} {
			*addr = "127.0.0.1:0"
		}
		err := Dev(t.Context(), config, io.Discard, io.Discard)
		if refused := new(format.NewerError); !errors.As(err, &refused) ||
			!strings.Contains(err.Error(), filepath.Join(data, newer)+" has format 97, written by headgate v9.7.0") {
			t.Errorf("%s: %v, want a NewerError", newer, err)
		}
		if _, err := os.Stat(filepath.Join(data, "nats")); newer == "." && err == nil {
			t.Error("a directory of a newer format has been changed")
		}
	}
}

func TestServe_RejectsStreamsOfNewerFormats(t *testing.T) {
	r := startRole(t, "aggregate")
	r.until(t, "the start waits")
	other := server.Options{}
	r.startNATSWith(t, other, func(js jetstream.JetStream) {
		if _, err := js.CreateStream(
			t.Context(),
			jetstream.StreamConfig{
				Name: "KV_runner",
				Metadata: map[string]string{
					"headgate.format": "97", "headgate.floor": "97", "headgate.writer": "v9.7.0",
				},
			},
		); err != nil {
			t.Fatal(err)
		}
	})
	err := <-r.ended
	if refused := new(format.NewerError); !errors.As(err, &refused) ||
		!strings.Contains(err.Error(), "bucket runner has format 97") {
		t.Errorf("%v, want a NewerError", err)
	}
}

// startNATSWith starts the NATS server that the role waits for, with data that prepare creates.
func (r *role) startNATSWith(t *testing.T, options server.Options, prepare func(jetstream.JetStream)) {
	t.Helper()
	options.StoreDir = t.TempDir()
	before := options
	before.Host, before.Port, before.JetStream, before.NoSigs, before.NoLog = "127.0.0.1", server.RANDOM_PORT, true,
		true, true
	s, err := server.NewServer(&before)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	prepare(js)
	conn.Close()
	s.Shutdown()
	s.WaitForShutdown()
	r.startNATS(t, options)
}
