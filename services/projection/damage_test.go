package projection_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// fileOf returns the only file of a tenant's views.
func fileOf(t *testing.T, dir, tenant string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, tenant+".*.db"))
	if err != nil || len(found) != 1 {
		t.Fatalf("files of the tenant: %v, %v", found, err)
	}
	return found[0]
}

// overwrite writes garbage into a file, from an offset.
func overwrite(t *testing.T, path string, offset, length int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteAt(bytes.Repeat([]byte("\x00garbage\xff"), int(length/9+1))[:length], offset); err != nil {
		t.Fatal(err)
	}
}

// damages are kinds of damage to a tenant's file while the process is stopped.
var damages = map[string]func(t *testing.T, path string){
	"truncated": func(t *testing.T, path string) {
		if err := os.Truncate(path, 10_000); err != nil {
			t.Fatal(err)
		}
	},
	"empty": func(t *testing.T, path string) {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	},
	"garbage header": func(t *testing.T, path string) { overwrite(t, path, 0, 100) },
	"garbage pages":  func(t *testing.T, path string) { overwrite(t, path, 4096, 64<<10) },
	"text file":      func(t *testing.T, path string) { overwrite(t, path, 0, 1<<20) },
	"directory": func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	},
	"broken link": func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(t.TempDir(), "none", "at", "all"), path); err != nil {
			t.Fatal(err)
		}
	},
	"without permissions": func(t *testing.T, path string) {
		if os.Geteuid() == 0 {
			t.Skip("root may read every file")
		}
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	},
	"garbage write-ahead log": func(t *testing.T, path string) { overwrite(t, path+"-wal", 0, 8192) },
	"directory as the write-ahead log": func(t *testing.T, path string) {
		if err := os.Mkdir(path+"-wal", 0o700); err != nil {
			t.Fatal(err)
		}
	},
	"database of another program": func(t *testing.T, path string) {
		other, err := sqlite.Open(t.Context(), t.TempDir(), natstest.Tenant(t, "acme"), []*model.View{notes(t)},
			"another")
		if err != nil {
			t.Fatal(err)
		}
		from := other.Path()
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, path); err != nil {
			t.Fatal(err)
		}
	},
}

// A damaged file of a tenant is set aside and rebuilt; the process starts, and the views of other tenants are not
// affected.
func TestDamage_FileIsSetAsideAndRebuilt(t *testing.T) {
	for name, damage := range damages {
		if testing.Short() && name != "truncated" {
			continue // the same code runs
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, js := t.TempDir(), natstest.Start(t)
			f := start(t, js, sqlite.In(dir), model.Wallet)
			f.fill(t)
			for i := range 400 {
				f.append(t, "acme", fmt.Sprintf("x%03d", i), "opened",
					fmt.Sprintf(`{"owner":%q}`, strings.Repeat("o", 200)))
			}
			count := func(tenant string) (int, error) {
				res, err := f.client.Query(
					as(t, tenant),
					&projectionv1.QueryRequest{
						View:        "wallets",
						Query:       &projectionv1.Query{PageSize: 1000},
						MinPosition: f.position(t, tenant),
					},
				)
				return len(res.GetRows()), err
			}
			for tenant, want := range map[string]int{"acme": 405, "globex": 1} {
				within(t, tenant+" is served", func() bool { n, err := count(tenant); return err == nil && n == want })
			}
			f.stop()
			path, other := fileOf(t, dir, "acme"), fileOf(t, dir, "globex")
			damage(t, path)
			before, err := os.Stat(other)
			if err != nil {
				t.Fatal(err)
			}

			last, versions, sequence := f.last, f.versions, f.sequence
			f = start(t, js, sqlite.In(dir), model.Wallet)
			f.last, f.versions, f.sequence = last, versions, sequence
			if n, err := count("globex"); err != nil || n != 1 {
				t.Errorf("another tenant: %d rows, %v", n, err)
			}
			within(t, "the views are rebuilt", func() bool { n, err := count("acme"); return err == nil && n == 405 })
			f.append(t, "acme", "w0", "deposited", `{"amount":1,"reference":""}`)
			within(t, "they advance", func() bool { n, err := count("acme"); return err == nil && n == 405 })
			if after, err := os.Stat(other); err != nil || !os.SameFile(before, after) {
				t.Errorf("another tenant's file was replaced: %v", err)
			}
			aside, err := filepath.Glob(filepath.Join(dir, "acme.*.damaged-*"))
			if err != nil || len(aside) == 0 {
				t.Errorf("no damaged file was renamed: %v", err)
			}
			if n := damagedCount(t, f.service); n != 1 {
				t.Errorf("%v files are counted as damaged", n)
			}
		})
	}
}

// damagedCount returns the number of files that a service has found damaged.
func damagedCount(t *testing.T, service *projection.Service) float64 {
	t.Helper()
	n, err := testutil.GatherAndCount(registryOf(service), "headgate_projection_damaged_total")
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	families, err := registryOf(service).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "headgate_projection_damaged_total" {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// A file that is damaged while it is in use is replaced without a restart, and calls fail only as UNAVAILABLE.
func TestDamage_FileInUseIsReplaced(t *testing.T) {
	dir := t.TempDir()
	f := start(t, natstest.Start(t), sqlite.In(dir), model.Wallet)
	f.fill(t)
	for i := range 400 {
		f.append(t, "acme", fmt.Sprintf("x%03d", i), "opened", fmt.Sprintf(`{"owner":%q}`, strings.Repeat("o", 200)))
	}
	count := func() (int, error) {
		res, err := f.client.Query(
			as(t, "acme"),
			&projectionv1.QueryRequest{
				View:        "wallets",
				Query:       &projectionv1.Query{PageSize: 1000},
				MinPosition: f.position(t, "acme"),
			},
		)
		return len(res.GetRows()), err
	}
	within(t, "acme is served", func() bool { n, err := count(); return err == nil && n == 405 })
	for round := range 4 {
		path := fileOf(t, dir, "acme")
		for _, suffix := range []string{"", "-wal"} { // nothing in it can be read
			if info, err := os.Stat(path + suffix); err == nil && info.Size() > 0 {
				overwrite(t, path+suffix, 0, info.Size())
			}
		}
		f.append(t, "acme", "w0", "deposited", `{"amount":1,"reference":""}`)
		var once sync.Once
		within(t, "the views are rebuilt", func() bool {
			n, err := count()
			if err != nil && !strings.HasPrefix(err.Error(), "unavailable") &&
				!strings.HasPrefix(err.Error(), "deadline_exceeded") {
				once.Do(func() { t.Errorf("round %d: %v", round, err) })
			}
			return err == nil && n == 405 && damagedCount(t, f.service) == float64(round+1)
		})
	}
	aside, err := filepath.Glob(filepath.Join(dir, "acme.*.damaged-*"))
	times := map[string]bool{}
	for _, name := range aside {
		times[strings.TrimSuffix(strings.TrimSuffix(name, "-wal"), "-shm")] = true
	}
	if err != nil || len(times) != 2 {
		t.Errorf("%d damaged files retained, want the newest two: %v, %v", len(times), aside, err)
	}
}

// A log that a crash has truncated is not damage: its last frames may be incomplete.
func TestDamage_TruncatedLogIsUsed(t *testing.T) {
	dir, tenant, view := t.TempDir(), natstest.Tenant(t, "acme"), notes(t)
	s, err := sqlite.Open(t.Context(), dir, tenant, []*model.View{view}, "origin")
	if err != nil {
		t.Fatal(err)
	}
	for sequence := uint64(1); sequence <= 20; sequence++ {
		if err := s.Apply(context.Background(), putting(view, sequence)); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.ReadFile(s.Path() + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{len(log), len(log) - 100, len(log) - 4096, len(log) - 5000, len(log) / 2, 32, 0} {
		copied := t.TempDir()
		for suffix, data := range map[string][]byte{"": nil, "-wal": log[:cut]} {
			if data == nil {
				if data, err = os.ReadFile(s.Path() + suffix); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(copied, filepath.Base(s.Path())+suffix), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again, err := sqlite.Open(t.Context(), copied, tenant, []*model.View{view}, "origin")
		if err != nil {
			t.Fatal(err)
		}
		if why := again.Replaced(); (why != nil) != (cut <= 32 && len(log) > 0 && emptyFile(t, s.Path())) {
			t.Errorf("truncated at %d of %d: %v", cut, len(log), why)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// putting returns a change that stores a row of 2 kB with a sequence as its key.
func putting(view *model.View, sequence uint64) func(*store.Batch, store.State) error {
	return func(batch *store.Batch, _ store.State) error {
		batch.Advance(store.Checkpoint{Sequence: sequence})
		key := fmt.Sprint(sequence)
		return batch.Put(view, key, model.Object{"title": key + strings.Repeat("x", 2000)})
	}
}

func emptyFile(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size() == 0
}

// registryOf returns a registry with a service's metrics.
func registryOf(service *projection.Service) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(service)
	return registry
}
