package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// envCrowd is the variable that makes the test binary run as a crowd. Its value is a crowd in JSON.
const envCrowd = "HEADGATE_SOAK_CROWD"

// crowd is a number of callers that overload a gateway. They are a separate process at the lowest priority, so that
// the gateway's reaction is measured, and not the CPU time of the callers on the same cores.
type crowd struct {
	Address, Token, Tenant string
	// Rate is the calls per second, regardless of responses; 0: as many as Callers make.
	Rate int
	// Callers is the number of concurrent callers without a pause, if Rate is 0.
	Callers int
}

// crowdResult is the number of finished and of failed calls.
type crowdResult struct{ Calls, Refused int64 }

func TestMain(m *testing.M) {
	// Callers and nodes have heaps of a few MiB, which would be collected four times per second; a collection takes
	// longer than a call.
	debug.SetGCPercent(800)
	text := os.Getenv(envCrowd)
	if text == "" {
		os.Exit(m.Run())
	}
	var c crowd
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run calls until the process receives a signal to end, and prints the result.
func (c crowd) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	conn, err := grpc.NewClient("passthrough:///"+c.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var calls, refused atomic.Int64
	call := func() {
		_, err := query(ctx, conn, c.Token, c.Tenant)
		if ctx.Err() != nil {
			return
		}
		calls.Add(1)
		if err != nil {
			refused.Add(1)
		}
	}
	if c.Rate > 0 {
		atRate(ctx, c.Rate, func(time.Time) { call() })
	}
	var callers sync.WaitGroup
	for range c.Callers {
		callers.Go(func() {
			for ctx.Err() == nil {
				call()
			}
		})
	}
	callers.Wait()
	return json.NewEncoder(os.Stdout).Encode(crowdResult{calls.Load(), refused.Load()})
}

// crowd starts a crowd; end stops it and adds its calls to a period.
func (s *soak) crowd(t *testing.T, c crowd) (end func(*period)) {
	t.Helper()
	c.Address, c.Token = s.addrs["headgate-grpc"], s.token
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(s.dir, "crowd-"+c.Tenant+".log")
	output, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = output.Close() }() // the process has a descriptor of it
	cmd := exec.CommandContext(t.Context(), "nice", "-n", "19", s.paths["bench"])
	cmd.Env = append(os.Environ(), envCrowd+"="+string(text))
	cmd.Stdout, cmd.Stderr = output, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func(p *period) {
		t.Helper()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		text, _ := os.ReadFile(log)
		var result crowdResult
		if err != nil || json.Unmarshal(text, &result) != nil || result.Calls == 0 {
			t.Fatalf("the crowd reached no gateway: %v: %s", err, text)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.calls += int(result.Calls)
		p.shed += int(result.Refused)
	}
}
