package format

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUpgrade_RaisesAndNeverLowers(t *testing.T) {
	for name, c := range map[string]struct {
		found, want Record
		known       Format
	}{
		"no record":              {Record{}, Record{Format: Format{1, 1}}, Format{1, 1}},
		"no record, newer":       {Record{}, Record{Format{3, 1}, Program()}, Format{3, 1}},
		"the same":               {Record{Format{2, 1}, "v1"}, Record{Format{2, 1}, "v1"}, Format{2, 1}},
		"a newer program":        {Record{Format{2, 1}, "v1"}, Record{Format{3, 2}, Program()}, Format{3, 2}},
		"an older program":       {Record{Format{3, 1}, "v2"}, Record{Format{3, 1}, "v2"}, Format{1, 1}},
		"an older one, at floor": {Record{Format{3, 2}, "v2"}, Record{Format{3, 2}, "v2"}, Format{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := c.found.Upgrade("it", c.known); err != nil || got != c.want {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestUpgrade_RejectsNewerFormat(t *testing.T) {
	_, err := Record{Format{4, 3}, "v2.0.0"}.Upgrade("stream EVENTS", Format{2, 1})
	var newer *NewerError
	if !errors.As(err, &newer) {
		t.Fatal(err)
	}
	for _, want := range []string{
		"stream EVENTS has format 4", "headgate v2.0.0", "knows format 3", "this is headgate " + Program(), "up to 2",
		"backup",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q", err, want)
		}
	}
}

func TestOpenDir_RecordsOnceAndRejectsNewer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	path := filepath.Join(dir, File)
	for range 2 {
		if err := OpenDir(dir, Format{2, 1}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if want := `{"format":2,"floor":1,"writer":"` + Program() + `"}` + "\n"; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v: want the record alone", files, err)
	}
	if err := OpenDir(dir, Format{1, 1}); err != nil {
		t.Errorf("a program that knows the floor is refused: %v", err)
	}
	if now, _ := os.ReadFile(path); string(now) != string(text) {
		t.Errorf("an older program has changed the record to %s", now)
	}
	if err := os.WriteFile(path, []byte(`{"format":7,"floor":7,"writer":"v9"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var newer *NewerError
	if err := OpenDir(dir, Format{2, 1}); !errors.As(err, &newer) {
		t.Errorf("%v, want a NewerError", err)
	}
	if err := os.WriteFile(path, []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := OpenDir(dir, Format{2, 1}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v: want the file's name", err)
	}
}
