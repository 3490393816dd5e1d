//go:build linux

package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/internal/disk"
	"github.com/headgate/headgate/internal/disk/disktest"
)

func TestProbe_FailsOnFullDisk(t *testing.T) {
	dir := disktest.Small(t, 4<<20)
	if err := disk.Probe(dir, 1<<20); err != nil {
		t.Fatal(err)
	}
	if free, ok, err := disk.Room(dir); err != nil || !ok || free != 4<<20 {
		t.Errorf("%d bytes free, %v, %v: want all of them", free, ok, err)
	}
	free := disktest.Fill(t, dir)
	if room, _, err := disk.Room(dir); err != nil || room != 0 {
		t.Errorf("%d bytes free, %v", room, err)
	}
	if err := disk.Probe(dir, 1<<20); !disk.Full(err) {
		t.Errorf("%v: want an error that the disk is full", err)
	}
	free()
	if err := disk.Probe(dir, 1<<20); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v: want nothing left behind", entries, err)
	}
}

func TestAnchor_DetectsMissingDirectory(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	open := func() *os.File {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := os.Create(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	anchor := disk.NewAnchor(open())
	check := func(want error) {
		t.Helper()
		if err := anchor.Check(); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	check(nil)
	moved := filepath.Join(parent, "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	check(disk.ErrGone)
	open() // another directory with the same name
	check(disk.ErrGone)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(moved, dir)); err != nil {
		t.Fatal(err)
	}
	check(nil)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	check(disk.ErrGone)
}
