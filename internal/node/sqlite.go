package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/disk"
	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
)

// newSQLiteProjection returns the projection role with its views in a directory, which is created if it does not
// exist. Error: a [format.NewerError] for a directory of a newer version.
func newSQLiteProjection(
	ctx context.Context, m *member, models *model.Registry, config projection.Config, path string, listen rpc.Config,
) (*service, error) {
	views, err := openViewsDirectory(path, m.log)
	if err != nil {
		return nil, err
	}
	return newProjection(ctx, m, models, config, viewStore{
		open:    sqlite.In(path),
		ready:   views.ready,
		metrics: []prometheus.Collector{views},
		run:     views.run,
		close:   views.close,
	}, listen)
}

// examineViewsEvery is the interval at which the views' directory is checked.
const examineViewsEvery = time.Second

// viewsDirectory is the directory of a projection's views. It may disappear while the process has its files open, and
// what is written to them then is lost when the process ends. Its methods may be called concurrently.
type viewsDirectory struct {
	path   string
	file   *os.File
	anchor *disk.Anchor
	gone   atomic.Bool
	log    zerolog.Logger
}

func openViewsDirectory(path string, log zerolog.Logger) (*viewsDirectory, error) {
	if err := format.OpenDir(path, viewsFormat); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the directory of the views: %w", err)
	}
	return &viewsDirectory{
		path:   path,
		file:   file,
		anchor: disk.NewAnchor(file),
		log:    log,
	}, nil
}

// errViewsGone is the reason why a projection is not ready after its directory has disappeared.
var errViewsGone = errors.New(
	"the directory of the views has disappeared: restore it, or restart the process, which rebuilds the views",
)

// ready returns errViewsGone while the directory is not the one that was opened.
func (d *viewsDirectory) ready() error {
	if d.gone.Load() {
		return errViewsGone
	}
	return nil
}

// run checks the directory until ctx ends, and logs each change once.
func (d *viewsDirectory) run(ctx context.Context) error {
	ticker := time.NewTicker(examineViewsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			d.examine()
		}
	}
}

func (d *viewsDirectory) examine() {
	err := d.anchor.Check()
	gone := errors.Is(err, disk.ErrGone)
	if gone == d.gone.Swap(gone) {
		return
	}
	if gone {
		d.log.Error().Err(err).Str("directory", d.path).Msg(errViewsGone.Error())
	} else {
		d.log.Warn().Str("directory", d.path).Msg("the directory of the views is back")
	}
}

func (d *viewsDirectory) close() error { return d.file.Close() }

var (
	viewsDisk = prometheus.NewDesc("headgate_views_disk_bytes",
		"Bytes of the file system of the views' directory, by state: free.", []string{"state"}, nil)
	viewsPresent = natsserver.DirectoryPresent("views")
)

// Describe implements [prometheus.Collector].
func (d *viewsDirectory) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- viewsDisk
	descriptions <- viewsPresent
}

// Collect implements [prometheus.Collector].
func (d *viewsDirectory) Collect(metrics chan<- prometheus.Metric) {
	present := 1.0
	if d.gone.Load() {
		present = 0
	}
	metrics <- prometheus.MustNewConstMetric(viewsPresent, prometheus.GaugeValue, present)
	if free, known, err := disk.Room(d.path); known && err == nil {
		metrics <- prometheus.MustNewConstMetric(viewsDisk, prometheus.GaugeValue, float64(free), "free")
	}
}
