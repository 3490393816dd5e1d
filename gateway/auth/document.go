package auth

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"
)

// pollInterval is the interval at which a document is read. A change applies when two consecutive
// reads are equal: a file may be read while it is being written.
const pollInterval = 2 * time.Second

// document is a document that is followed. Its methods must not be called concurrently.
type document struct {
	source    Source
	what      string // it contains, for errors
	most      int    // bytes; 0: maxKeysBytes
	recovered func() // called when the text in use is read again after a failure; nil: no function is called
	failing   bool
	raw       []byte // the text in use
	seen      []byte // the text of the last read
}

// open reads the document for the first time, and puts it into use.
func (d *document) open(ctx context.Context, use func([]byte) error) error {
	text, err := d.read(ctx)
	if err != nil {
		return err
	}
	d.raw, d.seen = text, text
	return use(text)
}

// follow reads the document until ctx ends, and puts its changes into use. It calls changed after each,
// and report after failures: the former text then stays in use. An invalid text is reported once.
func (d *document) follow(ctx context.Context, use func([]byte) error, changed func(), report func(error)) {
	repeat(ctx, pollInterval, func() {
		text, err := d.read(ctx)
		again := bytes.Equal(text, d.seen)
		d.seen = text
		switch {
		case err != nil:
			d.failing = true
			report(err)
		case !again:
		case bytes.Equal(text, d.raw):
			if d.failing && d.recovered != nil {
				d.recovered()
			}
			d.failing = false
		default:
			d.failing = false
			d.raw = text // an invalid text is reported once
			if err := use(text); err != nil {
				report(err)
			} else {
				changed()
			}
		}
	})
}

// read reads the source within 5 s.
func (d *document) read(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	text, err := d.source(ctx)
	if most := cmp.Or(d.most, maxKeysBytes); err == nil && len(text) > most {
		err = tooLarge(most)
	}
	if err != nil {
		return nil, fmt.Errorf("auth: read %s: %w", d.what, err)
	}
	return text, nil
}

// repeat calls do after each period until ctx ends.
func repeat(ctx context.Context, period time.Duration, do func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}
