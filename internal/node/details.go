package node

import (
	"time"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc"
)

// detailsEvery is the time between two measurements of a node's procedures.
const detailsEvery = 15 * time.Second

// detailing measures what operators inspect of a node. It is not safe for concurrent use.
type detailing struct {
	server  *rpc.Server
	meter   *rpc.ProcedureMeter
	since   time.Time // of the last measurement
	details *fleet.Details
}

func newDetailing(server *rpc.Server) *detailing {
	return &detailing{server: server, meter: server.Metrics.Procedures(), since: time.Now()}
}

// update returns the details, which are measured again when it is time.
func (d *detailing) update(now time.Time) *fleet.Details {
	if d.details != nil && now.Sub(d.since) < detailsEvery {
		return d.details
	}
	details := &fleet.Details{Seconds: now.Sub(d.since).Seconds()}
	if cert := d.server.Certificate(); cert != nil {
		details.Certificate = &fleet.Certificate{
			Subject:  excerpt.Text(cert.Subject.CommonName, excerpt.Name),
			Issuer:   excerpt.Text(cert.Issuer.CommonName, excerpt.Name),
			NotAfter: cert.NotAfter,
		}
	}
	for _, setting := range d.server.Settings() {
		details.Settings = append(details.Settings, fleet.Setting(setting))
	}
	for _, load := range d.meter.Measure(fleet.MaxProcedures) {
		details.Procedures = append(details.Procedures, fleet.ProcedureLoad{
			Procedure: excerpt.Text(load.Procedure, excerpt.Name),
			Calls:     load.Calls,
			Errors:    load.Errors,
			P50:       milliseconds(load.P50),
			P95:       milliseconds(load.P95),
			P99:       milliseconds(load.P99),
		})
	}
	d.since, d.details = now, details
	return details
}
