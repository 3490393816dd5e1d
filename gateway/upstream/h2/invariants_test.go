package h2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// counted is a pool that counts its buffers in use. Small ones do not count: package mem leaves
// those to the garbage collector.
type counted struct {
	mem.BufferPool

	inUse atomic.Int64
}

func (c *counted) Get(size int) *[]byte {
	buffer := c.BufferPool.Get(size)
	c.count(buffer, 1)
	return buffer
}

func (c *counted) Put(buffer *[]byte) {
	c.count(buffer, -1)
	c.BufferPool.Put(buffer)
}

func (c *counted) count(buffer *[]byte, n int64) {
	if !mem.IsBelowBufferPoolingThreshold(cap(*buffer)) {
		c.inUse.Add(n)
	}
}

// countedConfig is [config] with memory that is counted.
func countedConfig() (channels.Config, *counted) {
	c := config()
	memory := &counted{BufferPool: c.Memory}
	c.Memory = memory
	return c, memory
}

// idle checks that nothing is left of the calls on a channel: the streams, reservations and
// messages of each connection, and their memory.
func idle(t *testing.T, channel fast, memory *counted) {
	t.Helper()
	channel.mu.Lock()
	defer channel.mu.Unlock()
	for c := range channel.conns {
		c.mu.Lock()
		if len(c.streams) > 0 || len(c.waiting) > 0 || c.reserved != 0 || len(c.queue) > 0 {
			t.Errorf("a connection has %d streams, %d waiting, %d turns and %d messages to send", len(c.streams),
				len(c.waiting), c.reserved, len(c.queue))
		}
		if c.credit >= c.channel.config.ConnWindow/4 {
			t.Errorf("%d bytes are not granted again", c.credit)
		}
		c.mu.Unlock()
	}
	if n := memory.inUse.Load(); n != 0 {
		t.Errorf("%d buffers are in use", n)
	}
}

// behaving serves, over clear-text HTTP/2 of net/http, the behaviour that the path of a call names.
func behaving(t *testing.T) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Protocols:         protocols,
		Handler:           http.HandlerFunc(behave),
		ReadHeaderTimeout: time.Minute,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 20},
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}

// behaviours of a peer, by path.
var behaviours = []string{
	"/echo", "/large", "/tiny", "/too-large", "/compressed", "/cut", "/reset", "/foreign", "/no-status", "/silent",
}

func behave(w http.ResponseWriter, r *http.Request) {
	answer := func(part []byte) {
		_, _ = w.Write(part) // the client may have left
		_ = http.NewResponseController(w).Flush()
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	switch r.URL.Path {
	case "/echo":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		answer(body)
	case "/large":
		answer(framed(strings.Repeat("x", 200<<10)))
	case "/tiny":
		answer(bytes.Repeat(framed("x"), 2000))
	case "/too-large":
		answer(append([]byte{0, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 16<<10)...))
	case "/compressed":
		answer(append([]byte{1, 0, 0, 0x40, 0}, make([]byte, 16<<10)...))
	case "/cut":
		answer(framed(strings.Repeat("x", 20<<10))[:10<<10])
	case "/reset":
		answer(framed("one")[:6])
		panic(http.ErrAbortHandler)
	case "/foreign":
		http.Error(w, strings.Repeat("no such path ", 1000), http.StatusNotFound)
	case "/no-status":
		w.Header().Del("Trailer")
		answer(framed("one"))
		return
	case "/silent":
		<-r.Context().Done()
	}
	w.Header().Set("Grpc-Status", "0")
}

// do makes a call of a behaviour, and ends it at random: by reading it, or by closing it.
func do(channel fast, r *rand.Rand, path string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if leaves := r.IntN(3); path == "/silent" || leaves == 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(r.IntN(10_000))*time.Microsecond)
		defer stop()
	}
	message := bytes.Repeat([]byte("m"), r.IntN(3)*r.IntN(40<<10))
	request := channels.Request{
		Path:       path,
		Message:    message,
		HasMessage: true,
		Last:       true,
		Whole:      r.IntN(2) == 0,
	}
	if r.IntN(20) == 0 {
		request.Fields = []hpack.HeaderField{
			{Name: "large", Value: strings.Repeat("x", 2<<20)},
		} // more than the peer takes
	}
	stream, err := channel.Open(ctx, request)
	if err != nil {
		return nil // it had no time, or its headers were too large
	}
	defer stream.Close()
	for range r.IntN(3) {
		buffer, err := stream.Receive(ctx)
		if err != nil {
			return nil // as the behaviour has it
		}
		if path == "/echo" && string(buffer.ReadOnlyData()) != string(message) {
			buffer.Free()
			return fmt.Errorf("%d bytes come back as %d", len(message), buffer.Len())
		}
		buffer.Free()
	}
	return nil
}

func TestChannel_ReleasesEverythingAfterCalls(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			config, memory := countedConfig()
			channel := channelTo(t, behaving(t), config)
			var group sync.WaitGroup
			for caller := range uint64(30) { // more than there are places
				group.Go(func() {
					r := rand.New(rand.NewPCG(seed, caller))
					for range 40 {
						path := behaviours[r.IntN(len(behaviours))]
						if err := do(channel, r, path); err != nil {
							t.Errorf("%s: %v", path, err)
						}
					}
				})
			}
			group.Wait()
			idle(t, channel, memory)
			// The window is complete: answers that need nearly all of it arrive.
			for range 3 {
				if got, _, err := ask(t.Context(), channelAs(channel, "/large"), "?"); err != nil ||
					len(got) != 200<<10 {
					t.Errorf("a large answer afterwards: %d bytes, %v", len(got), err)
				}
			}
			idle(t, channel, memory)
		})
	}
}

// channelAs is an opener with a fixed path.
func channelAs(channel fast, path string) opener {
	return func(ctx context.Context, request channels.Request) (stream, error) {
		request.Path = path
		return channel.Open(ctx, request)
	}
}

func TestChannel_RejectedAnswersRestoreWindow(t *testing.T) {
	for name, answer := range map[string]func(p *peer, stream uint32) (sent int, err error){
		"too large": func(p *peer, stream uint32) (int, error) {
			part := append([]byte{0, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 10_000)...)
			return len(part), errors.Join(p.begin(stream), p.WriteData(stream, false, part))
		},
		"compressed": func(p *peer, stream uint32) (int, error) {
			part := append([]byte{1, 0, 0, 0, 9}, make([]byte, 10_000)...)
			return len(part), errors.Join(p.begin(stream), p.WriteData(stream, false, part))
		},
		"before its headers": func(p *peer, stream uint32) (int, error) {
			return 10_000, p.WriteData(stream, false, make([]byte, 10_000))
		},
		"not gRPC's": func(p *peer, stream uint32) (int, error) {
			return 10_000, errors.Join(p.headers(stream, false, ":status", "404"),
				p.WriteData(stream, true, make([]byte, 10_000)))
		},
		"without trailers": func(p *peer, stream uint32) (int, error) {
			return 10_000, errors.Join(p.begin(stream), p.WriteData(stream, true, make([]byte, 10_000)))
		},
		"padded": func(p *peer, stream uint32) (int, error) {
			return 6 +
					200, errors.Join(p.begin(stream),
					p.WriteDataPadded(stream, false, []byte{1, 0, 0, 0, 0}, make([]byte, 200)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, memory := countedConfig()
			sent, granted, calls, left := 0, 0, make(chan struct{}, 1), make(chan struct{})
			channel := channelTo(t, script(t, nil, func(p *peer) error {
				defer close(left)
				for {
					frame, err := p.ReadFrame()
					if err != nil {
						return nil // the client has left
					}
					switch f := frame.(type) {
					case *http2.WindowUpdateFrame:
						if f.StreamID == 0 {
							granted += int(f.Increment)
						}
					case *http2.HeadersFrame:
						if _, err := p.decoder.DecodeFull(f.HeaderBlockFragment()); err != nil {
							return err
						}
						n, err := answer(p, f.StreamID)
						if sent += n; err != nil {
							return err
						}
						calls <- struct{}{}
					}
				}
			}), config)
			for range 100 { // four windows of the connection, where an answer is large
				if _, _, err := ask(t.Context(), channel, "?"); err == nil && name != "not gRPC's" {
					t.Fatal("the answer is accepted")
				}
				<-calls
			}
			idle(t, channel, memory)
			channel.Close()
			<-left // the peer has read all grants
			if missing := sent - (granted - (config.ConnWindow - firstWindow)); missing >= config.ConnWindow/4 {
				t.Errorf("of %d bytes that the peer sent %d are not granted again", sent, missing)
			}
		})
	}
}

func TestChannel_UnusedReservationGoesToNextCall(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context, channel fast) error{
		"its headers are too large": func(ctx context.Context, channel fast) error {
			_, err := channel.Open(ctx,
				channels.Request{
					Path:   "/large",
					Fields: []hpack.HeaderField{{Name: "x", Value: strings.Repeat("x", 4000)}},
				})
			return err
		},
		"it has no time left": func(ctx context.Context, channel fast) error {
			late := past{ctx}
			_, err := channel.Open(late, channels.Request{Path: "/late"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			first, finish := make(chan struct{}), make(chan struct{})
			channel := channelTo(
				t,
				script(
					t,
					[]http2.Setting{
						{ID: http2.SettingMaxConcurrentStreams, Val: 1},
						{ID: http2.SettingMaxHeaderListSize, Val: 2000},
					},
					func(p *peer) error {
						stream, _, err := p.call()
						if err != nil {
							return err
						}
						close(first)
						<-finish
						if err := p.answer(stream, "one"); err != nil {
							return err
						}
						if stream, _, err = p.call(); err != nil {
							return err
						}
						return errors.Join(p.answer(stream, "two"), p.left())
					},
				), config(),
			)
			var group sync.WaitGroup
			group.Go(func() {
				if got, _, err := ask(t.Context(), channel, "?"); got != "one" {
					t.Error(got, err)
				}
			})
			<-first
			group.Go(func() {
				if err := fail(t.Context(), channel); err == nil {
					t.Error("the call begins")
				}
			})
			waits(channel, 1)
			group.Go(func() {
				if got, _, err := ask(t.Context(), channel, "?"); got != "two" {
					t.Error(got, err)
				}
			})
			waits(channel, 2)
			close(finish)
			group.Wait()
			channel.Close()
		})
	}
}

// past is a context whose deadline has passed, although it has not ended: its timer is late.
type past struct{ context.Context }

func (past) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// leaving is a context that has ended, and runs a function before it reports that.
type leaving struct {
	context.Context

	done   chan struct{}
	before func()
}

func (l leaving) Done() <-chan struct{} { return l.done }

func (l leaving) Err() error {
	l.before()
	return context.Canceled
}

// A call may receive its stream at the moment when its caller leaves.
func TestChannel_CanceledReservationGoesToNextCall(t *testing.T) {
	config, memory := countedConfig()
	first := make(chan struct{})
	channel := channelTo(
		t, script(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}, func(p *peer) error {
			one, _, err := p.call()
			if err != nil {
				return err
			}
			close(first)
			two, _, err := p.call()
			return errors.Join(err, p.answer(two, "two"), p.answer(one, "one"), p.left())
		}), config,
	)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var group sync.WaitGroup
	ask := func(want string) {
		group.Go(func() {
			if got, _, err := ask(ctx, channel, "?"); got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
	ask("one")
	<-first
	c := channel.live.Load()
	c.mu.Lock()
	ended := make(chan struct{})
	close(ended)
	err := c.wait(leaving{ctx, ended, func() {
		ask("two")
		waits(channel, 2)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.maxStreams = 2
		c.admit()
	}})
	c.mu.Unlock()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the call that left ends with %v", err)
	}
	group.Wait()
	idle(t, channel, memory)
	channel.Close()
}

// waits returns when a number of calls wait for a free stream.
func waits(channel fast, calls int) {
	for {
		c := channel.live.Load()
		c.mu.Lock()
		waiting := len(c.waiting)
		c.mu.Unlock()
		if waiting == calls {
			return
		}
		time.Sleep(time.Millisecond) // there is no event of a call that has begun to wait
	}
}

func TestStream_ManyTinyMessagesAreReceivedInOrder(t *testing.T) {
	const messages = 100_000
	config := config()
	config.StreamWindow, config.ConnWindow = 1<<20, 16<<20
	sent := make(chan struct{})
	channel := channelTo(t, script(t, nil, func(p *peer) error {
		stream, _, err := p.call()
		if err != nil {
			return err
		}
		if err := p.begin(stream); err != nil {
			return err
		}
		var part []byte
		for i := range messages {
			part = binary.BigEndian.AppendUint32(append(part, 0), 1)
			if part = append(part, byte(i)); len(part) > firstFrame-6 {
				err = errors.Join(err, p.WriteData(stream, false, part))
				part = part[:0]
			}
		}
		err = errors.Join(err, p.WriteData(stream, false, part), p.end(stream))
		close(sent)
		return errors.Join(err, p.left())
	}), config)
	stream := open(t, channel)
	<-sent // all of them are there before the first is received, or nearly
	for i := range messages {
		buffer, err := stream.Receive(t.Context())
		if err != nil {
			t.Fatal(i, err)
		}
		if got := buffer.ReadOnlyData(); len(got) != 1 || got[0] != byte(i) {
			t.Fatalf("message %d is %v", i, got)
		}
		buffer.Free()
	}
	if _, err := stream.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	channel.Close()
}
