package edge

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect/v2"
)

// minCompressed is the size in bytes below which compression costs more than it saves.
const minCompressed = 512

// encodings are the supported content encodings of request and response bodies (RFC 9110 §8.4).
type encodings []connect.Compressor

// of returns the compressor of a request's body, nil for an uncompressed one, or an error for the
// client.
func (e encodings) of(req *http.Request) (connect.Compressor, error) {
	name := strings.ToLower(strings.TrimSpace(req.Header.Get("Content-Encoding")))
	if name == "" || name == connect.CompressionNameIdentity {
		return nil, nil //nolint:nilnil // the body is not compressed
	}
	for _, c := range e {
		if c.Name() == name {
			return c, nil
		}
	}
	return nil, connect.Errorf(connect.CodeUnimplemented, "the content encoding %q is not supported (supported: %s)",
		name, e.names())
}

func (e encodings) names() string {
	names := make([]string, len(e))
	for i, c := range e {
		names[i] = c.Name()
	}
	return strings.Join(names, ", ")
}

// choose returns the first encoding that the client accepts, nil for none. The gateway's order
// decides among those with a weight above 0 (RFC 9110 §12.5.3).
func (e encodings) choose(req *http.Request) connect.Compressor {
	if len(e) == 0 {
		return nil
	}
	weights := map[string]float64{}
	for _, value := range req.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(value, ",") {
			name, parameter, _ := strings.Cut(part, ";")
			weight := 1.0
			if q, ok := strings.CutPrefix(strings.TrimSpace(parameter), "q="); ok {
				var err error
				if weight, err = strconv.ParseFloat(q, 64); err != nil {
					weight = 0
				}
			}
			weights[strings.ToLower(strings.TrimSpace(name))] = weight
		}
	}
	for _, c := range e {
		weight, named := weights[c.Name()]
		if !named {
			weight = weights["*"]
		}
		if weight > 0 {
			return c
		}
	}
	return nil
}

const headerVary = "Vary"

// varyEncoding is the Vary header of most answers. Its capacity is its length, so that append
// copies it.
var varyEncoding = []string{"Accept-Encoding"}

// write writes a complete body, compressed if that pays off and the client accepts it. Its error is
// that of the connection: the client has disconnected.
func (e encodings) write(w http.ResponseWriter, req *http.Request, text []byte) error {
	header := w.Header()
	if header[headerVary] == nil {
		header[headerVary] = varyEncoding
	} else {
		header.Add(headerVary, "Accept-Encoding")
	}
	if len(text) < minCompressed {
		e = nil
	}
	if c := e.choose(req); c != nil {
		if packed, err := compress(c, text); err == nil && len(packed) < len(text) {
			header.Set("Content-Encoding", c.Name())
			text = packed
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(text)))
	_, err := w.Write(text)
	return err
}

func compress(c connect.Compressor, text []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := c.Compress(&out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
