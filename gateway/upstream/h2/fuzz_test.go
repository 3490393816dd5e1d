package h2

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestHeaderBlocks_RoundTrip(t *testing.T) {
	options := config()
	var out outbound
	out.init(&options, "node:1")
	decoder := hpack.NewDecoder(firstTable, nil)
	for round := range 300 {
		phase := round / 20 // within which little changes
		path := fmt.Sprintf("/s/m%d", phase%3+round%2)
		fields := []hpack.HeaderField{
			{Name: "same", Value: "as before"},
			{Name: "now and then", Value: fmt.Sprint(phase)},
			{Name: "each", Value: fmt.Sprint(round)},
		}
		for more := range phase % 5 * 10 {
			fields = append(fields,
				hpack.HeaderField{Name: fmt.Sprint("more-", more, "-", phase), Value: strings.Repeat("v", more)})
		}
		if round%20 == 10 { // smaller and larger
			size := uint32(round * 7 % firstTable)
			out.limit(size)
			decoder.SetAllowedMaxDynamicTableSize(size)
		}
		out.encode(fields, path, time.Duration(round)*time.Second)
		got, err := decoder.DecodeFull(out.block.Bytes())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for i := range got {
			got[i].Sensitive = false
		}
		want := slices.Clone(out.common[:])
		want[pathAt].Value = path
		if round > 0 {
			want = append(
				want,
				hpack.HeaderField{
					Name:  "grpc-timeout",
					Value: string(appendTimeout(nil, time.Duration(round)*time.Second)),
				},
			)
		}
		if want = append(want, fields...); !slices.Equal(got, want) {
			t.Fatalf("round %d: %v, want %v", round, got, want)
		}
	}
}

// FuzzHeaders makes calls with any headers, paths and timeouts, while the peer changes the size of
// its table: each block is decoded to the encoded fields.
func FuzzHeaders(f *testing.F) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		f.Add(seed, uint8(seed), uint8(seed/4))
	}
	f.Fuzz(func(t *testing.T, seed uint64, paths, names uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		options := config()
		var out outbound
		out.init(&options, "node:1")
		decoder := hpack.NewDecoder(firstTable, nil)
		for call := range 300 {
			if r.IntN(40) == 0 {
				size := []uint32{0, 1, 40, 100, 300, 1000, 4096, 65536}[r.IntN(8)]
				out.limit(size)
				decoder.SetAllowedMaxDynamicTableSize(size)
			}
			path := fmt.Sprintf("/s/%d", r.IntN(2*int(paths)+1))
			var fields []hpack.HeaderField
			for range r.IntN(8) {
				value := strings.Repeat(string(rune('a'+r.IntN(3))), []int{0, 1, 10, 100, 5000}[r.IntN(5)])
				fields = append(fields,
					hpack.HeaderField{Name: fmt.Sprintf("x-%d", r.IntN(int(names)+1)), Value: value})
			}
			remaining := time.Duration(r.IntN(3)) * time.Duration(r.IntN(1e9))
			out.encode(fields, path, remaining)
			got, err := decoder.DecodeFull(out.block.Bytes())
			if err != nil {
				t.Fatalf("call %d: %v", call, err)
			}
			want := slices.Clone(out.common[:])
			want[pathAt].Value = path
			if remaining > 0 {
				want = append(want,
					hpack.HeaderField{Name: "grpc-timeout", Value: string(appendTimeout(nil, remaining))})
			}
			want = append(want, fields...)
			for i := range got {
				got[i].Sensitive = false
			}
			if !slices.Equal(got, want) {
				t.Fatalf("call %d: %v, want %v", call, got, want)
			}
		}
	})
}

// FuzzTimeout formats any duration: at most eight digits and a unit, and at most one unit longer
// than the duration.
func FuzzTimeout(f *testing.F) {
	for _, d := range []int64{
		1, 99_999_999, 100_000_000, 99_999_999_001, math.MaxInt64, int64(2000 * time.Hour),
		int64(100_000_000 * time.Second), int64(99_999_999*time.Minute + 1),
	} {
		f.Add(d)
	}
	units := map[byte]time.Duration{
		'n': 1, 'u': time.Microsecond, 'm': time.Millisecond, 'S': time.Second, 'M': time.Minute, 'H': time.Hour,
	}
	f.Fuzz(func(t *testing.T, nanoseconds int64) {
		d := time.Duration(nanoseconds)
		if d <= 0 {
			t.Skip("a call with a deadline has time left")
		}
		text := appendTimeout(nil, d)
		number, unit := string(text[:len(text)-1]), units[text[len(text)-1]]
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || len(number) > 8 || unit == 0 {
			t.Fatalf("%d is %s", d, text)
		}
		// Hours are rounded down: rounding up could exceed eight digits.
		if over := time.Duration(n)*unit - d; over >= unit || over < 0 && unit != time.Hour || over <= -time.Hour {
			t.Errorf("%d is %s, which is %v longer", d, text, over)
		}
	})
}

// FuzzPeer makes a peer send any bytes: a call must end, and stay within its memory.
func FuzzPeer(f *testing.F) {
	record := func(says func(*peer) error) []byte {
		var out bytes.Buffer
		p := &peer{Framer: http2.NewFramer(&out, nil)}
		p.encoder = hpack.NewEncoder(&p.block)
		if err := says(p); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	f.Add(record(func(p *peer) error { return p.answer(1, "yes") }))
	f.Add(record(func(p *peer) error {
		return errors.Join(p.begin(1), p.WriteDataPadded(1, false, framed("yes"), make([]byte, 9)),
			p.WritePing(false, [8]byte{}), p.end(1))
	}))
	f.Add(record(func(p *peer) error {
		return errors.Join(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}),
			p.WriteGoAway(1, 0, nil), p.WriteRSTStream(1, 7))
	}))
	f.Fuzz(func(t *testing.T, says []byte) {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		done := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				done <- err
				return
			}
			done <- errors.Join(act(conn, nil, func(p *peer) error {
				if _, _, err := p.call(); err != nil {
					return err
				}
				_, _ = conn.Write(says) // the client may have left
				return nil
			}), conn.Close())
		}()
		channel := fast{NewChannel(listener.Addr().String(), config())}
		if got, _, err := ask(t.Context(), channel, "?"); err == nil && len(got) > len(says) {
			t.Errorf("%d bytes make a message of %d", len(says), len(got))
		}
		channel.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
