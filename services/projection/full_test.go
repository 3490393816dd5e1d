//go:build linux

package projection_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/disk/disktest"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// A full disk is not damage: applied rows stay, errors report that the disk is full, reads succeed, and the views
// resume from their checkpoint once there is space.
func TestSQLite_ResumesAfterFullDisk(t *testing.T) {
	dir, view := disktest.Small(t, 16<<20), notes(t)
	tenant := natstest.Tenant(t, "acme")
	s, err := sqlite.Open(t.Context(), dir, tenant, []*model.View{view}, "origin")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	sequence := uint64(0)
	apply := func() error {
		err := s.Apply(context.Background(), putting(view, sequence+1))
		if err == nil {
			sequence++
		}
		return err
	}
	for range 2 {
		if err := apply(); err != nil {
			t.Fatal(err)
		}
		free := disktest.Fill(t, dir)
		for err = nil; err == nil; {
			err = apply()
		}
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("got %v, want an error that reports the full disk", err)
		}
		if at, err := s.State(t.Context()); err != nil || at.Sequence != sequence {
			t.Errorf("state %+v, %v, want sequence %d", at, err, sequence)
		}
		other, err := sqlite.Open(t.Context(), dir, natstest.Tenant(t, "globex"), []*model.View{view}, "origin")
		if err == nil {
			err = other.Close()
		}
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("got %v, want a start error that reports the full disk", err)
		}
		free()
		if err := apply(); err != nil {
			t.Error(err)
		}
	}
	found, err := os.ReadDir(dir)
	for _, file := range found {
		if strings.Contains(file.Name(), "damaged") {
			t.Errorf("%s was renamed as damaged", file.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
}
