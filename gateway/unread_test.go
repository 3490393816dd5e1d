package gateway_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/gateway"
)

// registerEndless registers a method of k whose streams have messages of 64 KiB without end, except in the room
// "quiet", where they have none.
func (k *ticker) registerEndless(server *connect.Server) {
	server.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: k.desc},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			req := dynamicpb.NewMessage(k.desc.Input())
			if err := stream.Receive(req); err != nil {
				return err
			}
			if req.Get(k.desc.Input().Fields().ByName("name")).String() == "rooms/quiet" {
				<-ctx.Done()
				return ctx.Err()
			}
			tick := dynamicpb.NewMessage(k.desc.Output())
			tick.Set(k.desc.Output().Fields().ByName("position"),
				protoreflect.ValueOfString(strings.Repeat("x", 64<<10)))
			for {
				if err := stream.Send(tick); err != nil {
					return err
				}
			}
		},
	})
}

// TestUnread_StreamsEndAndReleaseTheirMemory: clients of each protocol and port that do not read their streams.
func TestUnread_StreamsEndAndReleaseTheirMemory(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, func(c *gateway.Config) {
		c.Listen.WriteTimeout, c.KeepAlive = 100*time.Millisecond, 10*time.Millisecond
	}, ticks.registerEndless, ticks.set(t))
	token := e.token(t, "acme", "tick.read")
	request := dynamicpb.NewMessage(ticks.desc.Input())
	request.Set(ticks.desc.Input().Fields().ByName("name"), protoreflect.ValueOfString("rooms/hall"))
	wire, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	message := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(wire))), wire...)
	streams := 0
	ended := func(t *testing.T) {
		t.Helper()
		streams++
		eventually(t, "the stream has ended and its memory is released", func() bool {
			_, text := e.adminGet(t, "/metrics")
			return strings.Contains(
				text, fmt.Sprintf("headgate_streams_ended_total{process=\"gateway\",reason=\"unread\"} %d\n", streams),
			) && strings.Contains(text, "headgate_message_bytes{process=\"gateway\"} 0\n") &&
				strings.Contains(text, "headgate_upstream_in_flight{process=\"gateway\"} 0\n")
		})
	}
	for name, url := range map[string]string{"main": e.url, "grpc": e.grpc} {
		for _, media := range []string{"application/grpc", "application/grpc-web", "application/connect+proto"} {
			if name == "grpc" && media != "application/grpc" {
				continue
			}
			t.Run(name+", "+media, func(t *testing.T) {
				r := connectRaw(t, url)
				if err := r.begin(1, ":method", "POST", ":scheme", "http", ":authority", "edge", ":path",
					"/test.Ticker/Watch", "content-type", media, "te", "trailers", "authorization", token); err != nil {
					t.Fatal(err)
				}
				if err := r.framer.WriteData(1, true, message); err != nil {
					t.Fatal(err)
				}
				r.until(t, "the stream is reset", func(f http2.Frame) bool {
					reset, ok := f.(*http2.RSTStreamFrame)
					if ok && reset.ErrCode != http2.ErrCodeEnhanceYourCalm {
						t.Errorf("the stream is reset with %v", reset.ErrCode)
					}
					return ok
				})
				ended(t)
			})
		}
	}
	t.Run("Server-Sent Events that are keep-alives alone", func(t *testing.T) {
		r := connectRaw(t, e.url)
		if err := r.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			t.Fatal(err)
		}
		if err := r.begin(1, ":method", "GET", ":scheme", "http", ":authority", "edge", ":path",
			"/v1/ticks/rooms/quiet", "accept", "text/event-stream", "authorization", token); err != nil {
			t.Fatal(err)
		}
		if err := r.framer.WriteData(1, true, nil); err != nil {
			t.Fatal(err)
		}
		ended(t)
	})
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		t.Run("HTTP/1.1, "+accept, func(t *testing.T) {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "GET /v1/ticks/rooms/hall HTTP/1.1\r\nHost: edge\r\nAccept: %s\r\n"+
				"Authorization: %s\r\n\r\n", accept, token); err != nil {
				t.Fatal(err)
			}
			ended(t)
		})
	}
}
