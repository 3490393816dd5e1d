package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// startTimeout bounds the start of a process.
const startTimeout = 20 * time.Second

// process is a program that is measured from outside.
type process struct {
	cmd   *exec.Cmd
	admin string // URL of its metrics, which count allocations; "": none
}

// startProcess runs a program until stop, and writes its output to the file. It returns when addr accepts connections.
func startProcess(ctx context.Context, log, addr string, path string, args ...string) (*process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }() // the process has a duplicate
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = startTimeout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd}
	deadline := time.Now().Add(startTimeout)
	for {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return p, conn.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			p.stop()
			text, _ := os.ReadFile(log)
			return nil, fmt.Errorf("%s does not listen on %s: %s", filepath.Base(path), addr, text)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // it was ended by a signal
}

// ticksPerSecond is the unit of CPU time in /proc of Linux (USER_HZ).
const ticksPerSecond = 100

// cpu returns the CPU time that the process has used: the sum of its threads in nanoseconds if the kernel reports it,
// otherwise with the precision of a tick.
func (p *process) cpu() (time.Duration, error) {
	var total time.Duration
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err == nil && len(tasks) > 0 {
		for _, task := range tasks {
			text, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has just ended
			}
			ran, _, _ := strings.Cut(string(text), " ")
			n, err := strconv.ParseInt(ran, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n)
		}
		return total, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * time.Second / ticksPerSecond
	}
	return total, nil
}

// peak returns the process's maximum resident memory, and resident its current one,
// in bytes.
func (p *process) peak() (int64, error)     { return p.status("VmHWM:") }
func (p *process) resident() (int64, error) { return p.status("VmRSS:") }

// status returns the value of a line with an amount of memory in /proc, in bytes.
func (p *process) status(name string) (int64, error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = status.Close() }()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("/proc tells no %s", name)
}

// mallocs returns the number of objects that the process has allocated, and false if it does not report it.
func (p *process) mallocs(ctx context.Context) (int64, bool, error) {
	if p.admin == "" {
		return 0, false, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.admin, nil)
	if err != nil {
		return 0, false, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, false, err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "go_memstats_mallocs_total") {
			fields := strings.Fields(line)
			n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			return int64(n), true, err
		}
	}
	return 0, false, fmt.Errorf("%s tells no allocations", p.admin)
}

// portsTried counts the ports that freeAddr has tried, so that it returns none twice.
var portsTried atomic.Int64

// freeAddr returns an address of this machine without a listener. Its port is outside the range that the system assigns
// to connections, so that no connection takes it.
func freeAddr(ctx context.Context) (string, error) {
	const from, ports, tries = 20_000, 10_000, 100
	var err error
	for range tries {
		port := from + (int64(os.Getpid())*tries+portsTried.Add(1))%ports
		var listener net.Listener
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", err
}
