package edge

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// formOf returns the format of a server stream's answers, by the client's Accept header (RFC 9110
// §12.5.1). Without a preference it is Server-Sent Events if the header names them, else JSON
// lines.
func formOf(req *http.Request, b *binding) streamForm {
	if b.rawAnswers {
		return formRaw
	}
	eventsAt, linesAt := weight{}, weight{}
	for _, value := range req.Header.Values("Accept") {
		for part := range strings.SplitSeq(value, ",") {
			media, parameters, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			q := 1.0
			if text, ok := parameters["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil || q < 0 || q > 1 {
					q = 0
				}
			}
			switch media {
			case mediaEvents:
				eventsAt.set(q, 2)
			case mediaLines, "application/jsonl", mediaJSON:
				linesAt.set(q, 2)
			case "text/*":
				eventsAt.set(q, 1)
			case "application/*":
				linesAt.set(q, 1)
			case "*/*":
				eventsAt.set(q, 0)
				linesAt.set(q, 0)
			}
		}
	}
	if eventsAt.q > linesAt.q || eventsAt.q == linesAt.q && eventsAt.q > 0 && eventsAt.precision == 2 {
		return formEvents
	}
	return formLines
}

// weight is a quality value of the most precise media range that matches.
type weight struct {
	q         float64
	precision int
	known     bool
}

func (w *weight) set(q float64, precision int) {
	if !w.known || precision > w.precision || precision == w.precision && q > w.q {
		*w = weight{q, precision, true}
	}
}
