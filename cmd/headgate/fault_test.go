package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/streams"
)

const (
	// faultsVariable asks for a longer run, with that number of random faults.
	faultsVariable = "HEADGATE_FAULTS"
	// seedVariable makes a run draw the same faults as another.
	seedVariable = "HEADGATE_SEED"
	// isolation is longer than a NATS server takes to notice that it leads without a majority: its Raft leader checks
	// every 10 s whether it has received messages of one within 10 s.
	isolation = 24 * time.Second
	// leading is the target that stands for the NATS server that leads the journal.
	leading = "leader"
)

// fault is what is done to the cluster while it works.
type fault struct {
	// kind is "kill", "pause", "freeze", "cut", and of a NATS server among others "isolate", "mute", "deafen" or
	// "step down".
	kind   string
	target string // a role, a NATS server by its number, "nats-0", or leading
}

func (f fault) String() string { return f.kind + " " + f.target }

// wanted returns how many random faults the environment asks for, 0 for none, and their seed.
func wanted(t *testing.T) (number int, seed uint64) {
	t.Helper()
	number, err := strconv.Atoi(os.Getenv(faultsVariable))
	if err != nil || number < 1 {
		return 0, 0
	}
	if seed, err = strconv.ParseUint(os.Getenv(seedVariable), 10, 64); err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%s=%d", seedVariable, seed)
	return number, seed
}

// faults returns the given ones, or, if more are asked for, random ones.
func faults(t *testing.T, natsServers int, usual []fault) []fault {
	n, seed := wanted(t)
	if n == 0 {
		return usual
	}
	targets := []string{"aggregate", "projection", "gateway", "runner"}
	for server := range natsServers {
		targets = append(targets, fmt.Sprintf("nats-%d", server))
	}
	random := rand.New(rand.NewPCG(seed, 1))
	var out []fault
	kinds := []string{"kill", "kill", "pause", "cut"}
	if natsServers > 1 {
		kinds = append(kinds, "freeze")
	}
	for kills := 0; kills < n; {
		f := fault{kinds[random.IntN(len(kinds))], targets[random.IntN(len(targets))]}
		if f.kind == "kill" {
			kills++
		}
		out = append(out, f)
	}
	return out
}

// inflict does it, and undoes it.
func (c *cluster) inflict(ctx context.Context, t *testing.T, f fault) {
	t.Helper()
	target, server := c.roles[f.target], 0
	if f.target == leading {
		f.target = fmt.Sprintf("nats-%d", c.leader(ctx, t))
	}
	if _, err := fmt.Sscanf(f.target, "nats-%d", &server); err == nil {
		target = c.nats[server]
	}
	switch f.kind {
	case "kill":
		target.kill()
		target.start(t)
	case "pause": // a disk, or a host, that stands still for a while
		target.standStill(t, 700*time.Millisecond)
	case "freeze": // for so long that others lead in its place, of which it knows nothing
		target.standStill(t, 10*time.Second)
	case "cut":
		c.wires[server].cut()
	case "isolate": // its clients still reach it
		c.part(server, true, true)
	case "mute":
		c.part(server, true, false)
	case "deafen":
		c.part(server, false, true)
	case "step down":
		c.handOver(ctx, t)
	default:
		t.Fatalf("unknown fault %v", f)
	}
}

func (p *process) standStill(t *testing.T, long time.Duration) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(long)
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// startRoutes starts the wires between NATS servers that listen for each other at the given addresses.
func (c *cluster) startRoutes(t *testing.T, listen []string) {
	t.Helper()
	if len(listen) == 1 {
		return
	}
	for from := range listen {
		var wires []*wire
		for to, addr := range listen {
			if to == from {
				wires = append(wires, nil)
				continue
			}
			wires = append(wires, startWire(t, addr))
		}
		c.routes = append(c.routes, wires)
	}
}

// routesOf returns the routes in the configuration of a NATS server.
func (c *cluster) routesOf(server int) string {
	var urls []string
	for _, w := range c.routes[server] {
		if w != nil {
			urls = append(urls, strconv.Quote("nats://"+w.addr))
		}
	}
	return strings.Join(urls, ", ")
}

// part holds back what a NATS server sends to the others (out), and what they send to it (in), for a while.
func (c *cluster) part(server int, out, in bool) {
	var ends []func()
	for other := range c.routes {
		if other != server {
			ends = append(ends, c.routes[server][other].silence(out, in), c.routes[other][server].silence(in, out))
		}
	}
	<-time.After(isolation)
	for _, end := range ends {
		end()
	}
}

// leader returns the number of the NATS server that leads the journal.
func (c *cluster) leader(ctx context.Context, t *testing.T) (number int) {
	t.Helper()
	js, err := jetstream.New(c.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, "the journal has a leader", func() (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		stream, err := js.Stream(attempt, streams.Events)
		if err != nil {
			return false, err
		}
		_, err = fmt.Sscanf(stream.CachedInfo().Cluster.Leader, "n%d", &number)
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	return number
}

// handOver has the journal's leader hand over to another server.
func (c *cluster) handOver(ctx context.Context, t *testing.T) {
	t.Helper()
	conn := c.connect(t)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := stepDown(ctx, conn, js, streams.Events); err != nil {
		t.Log(err) // it had none
	}
}
