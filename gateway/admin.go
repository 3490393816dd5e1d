package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/internal/rpc"
)

// localAddr is a loopback address with a port that the system chooses.
const localAddr = "127.0.0.1:0"

// newAdmin returns the server for operators. It has its own address, so that the edge never exposes
// what it serves.
func (g *Gateway) newAdmin() *rpc.Server {
	addr := g.config.Admin
	if addr == "" {
		addr = localAddr
	}
	admin := rpc.NewAdmin(
		rpc.Config{
			Name:       g.config.Listen.Name,
			Addr:       addr,
			Sockets:    g.config.Listen.Sockets,
			LocalHosts: g.config.LocalAdmin,
			FastPaths:  g.config.Listen.FastPaths,
		},
		g.server, g.log,
	)
	admin.HTTP.Handle("GET /nodes", contextkit.HTTPMiddleware(http.HandlerFunc(g.serveNodes)))
	return admin
}

// nodesView is the body of /nodes.
type nodesView struct {
	// AgeMs is the age bound of the oldest answer, in milliseconds.
	AgeMs int64      `json:"ageMs"`
	Epoch uint64     `json:"routingEpoch"`
	Nodes []nodeView `json:"nodes"`
}

type nodeView struct {
	ID       string          `json:"id"`
	Kind     contextkit.Kind `json:"kind"`
	Endpoint string          `json:"endpoint"`
	Ready    bool            `json:"ready"`
	Answer   probe.Answer    `json:"answer,omitempty"`
	Error    string          `json:"error,omitempty"`
	TookMs   float64         `json:"tookMs"`
	// Breakers are the open breakers of the endpoint.
	Breakers []breakerView `json:"breakers,omitempty"`
}

// breakerView describes an open breaker.
type breakerView struct {
	// Procedure is the method whose calls are diverted; "": all methods of the node.
	Procedure string `json:"procedure,omitempty"`
	// Tenant is the only tenant whose calls are refused; nil: the calls of all tenants.
	Tenant   *string `json:"tenant,omitempty"`
	Failures int     `json:"failures"`
}

// openBreakers returns the open breakers by endpoint.
func (g *Gateway) openBreakers() map[string][]breakerView {
	open := map[string][]breakerView{}
	for _, state := range g.breakerStates() {
		if !state.Open {
			continue
		}
		view := breakerView{Procedure: state.Procedure, Failures: state.Failures}
		if state.Single {
			tenant := state.Tenant.String()
			view.Tenant = &tenant
		}
		open[state.Endpoint] = append(open[state.Endpoint], view)
	}
	for _, views := range open {
		slices.SortFunc(views, func(a, b breakerView) int { return strings.Compare(a.Procedure, b.Procedure) })
	}
	return open
}

// serveNodes lists each node of the routing table with its answer to the last probe.
func (g *Gateway) serveNodes(w http.ResponseWriter, r *http.Request) {
	snapshot, err := g.prober.Snapshot(r.Context())
	if err != nil {
		return // the client has disconnected
	}
	view := nodesView{AgeMs: snapshot.Age().Milliseconds(), Epoch: g.routes.Epoch(), Nodes: []nodeView{}}
	open := g.openBreakers()
	for _, answer := range snapshot.Answers {
		node := nodeView{
			ID:       answer.Node.ID,
			Kind:     answer.Node.Kind,
			Endpoint: answer.Node.Endpoint,
			Answer:   answer.Value,
			TookMs:   float64(answer.Took) / float64(time.Millisecond),
			Breakers: open[answer.Node.Endpoint],
		}
		if now, ok := g.routes.Node(node.ID); ok {
			node.Ready = now.Ready
		}
		if answer.Err != nil {
			node.Error = answer.Err.Error()
		}
		view.Nodes = append(view.Nodes, node)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(view) // the client is gone if this fails
}
