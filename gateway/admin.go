package gateway

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
)

// localAddr is a port of this machine that the system chooses.
const localAddr = "127.0.0.1:0"

// newAdmin returns the operators' server: it is not the edge's, so that what it
// shows never is the world's.
func (g *Gateway) newAdmin() *chassis.Server {
	addr := g.config.Admin
	if addr == "" {
		addr = localAddr
	}
	admin := chassis.NewAdmin(chassis.Config{Name: g.config.Listen.Name + "-admin", Addr: addr}, g.server, g.log)
	admin.HTTP.Handle("GET /nodes", contextkit.HTTPMiddleware(http.HandlerFunc(g.serveNodes)))
	return admin
}

// nodesView is the body of /nodes.
type nodesView struct {
	// AgeMs is how old the oldest answer may be.
	AgeMs    int64      `json:"ageMs"`
	Revision uint64     `json:"routingRevision"`
	Nodes    []nodeView `json:"nodes"`
}

type nodeView struct {
	ID       string  `json:"id"`
	Kind     string  `json:"kind"`
	Endpoint string  `json:"endpoint"`
	Ready    bool    `json:"ready"`
	Says     string  `json:"says,omitempty"`
	Error    string  `json:"error,omitempty"`
	TookMs   float64 `json:"tookMs"`
}

// serveNodes answers what each node says of itself, at most a moment old, and
// who did not answer.
func (g *Gateway) serveNodes(w http.ResponseWriter, r *http.Request) {
	snapshot, err := g.prober.Snapshot(r.Context())
	if err != nil {
		return // the client has left
	}
	view := nodesView{AgeMs: snapshot.Age().Milliseconds(), Revision: g.routes.Revision(), Nodes: []nodeView{}}
	for _, answer := range snapshot.Answers {
		node := nodeView{
			ID: answer.Node.ID, Kind: answer.Node.Kind, Endpoint: answer.Node.Endpoint, Says: answer.Value,
			TookMs: float64(answer.Took) / float64(time.Millisecond),
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
