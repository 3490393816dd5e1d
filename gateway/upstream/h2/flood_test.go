package h2

import (
	"errors"
	"testing"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/internal/rpc/flood"
)

// A peer sends frames without effect instead of an answer, and the next call finds another
// connection.
func TestChannel_FloodingPeerIsDisconnected(t *testing.T) {
	for name, play := range map[string]func(p *peer, stream uint32) error{
		"empty CONTINUATION": func(p *peer, stream uint32) error {
			err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream})
			for err == nil {
				err = p.WriteContinuation(stream, false, nil)
			}
			return nil // the client has left
		},
		"empty DATA": func(p *peer, stream uint32) error {
			err := p.begin(stream)
			for err == nil {
				err = p.WriteData(stream, false, nil)
			}
			return nil
		},
		"PING": func(p *peer, _ uint32) (err error) {
			for err == nil {
				err = p.WritePing(true, [8]byte{})
			}
			return nil
		},
		"WINDOW_UPDATE": func(p *peer, stream uint32) (err error) {
			for err == nil {
				err = p.WriteWindowUpdate(stream, 1)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := script(t, nil, func(p *peer) error {
				stream, _, err := p.call()
				if err != nil {
					return err
				}
				return play(p, stream)
			}, func(p *peer) error {
				stream, _, err := p.call()
				if err != nil {
					return err
				}
				return errors.Join(p.answer(stream, "yes"), p.left())
			})
			channel := channelTo(t, address, config())
			if _, _, err := ask(t.Context(), channel, "?"); !errors.Is(err, flood.ErrFlood) {
				t.Errorf("the call ends with %v", err)
			}
			if got, _, err := ask(t.Context(), channel, "?"); err != nil || got != "yes" {
				t.Errorf("the next call: %q, %v", got, err)
			}
			channel.Close()
		})
	}
}
