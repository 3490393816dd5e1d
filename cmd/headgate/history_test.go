package main_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/headgate/headgate/internal/journal"
)

// kind is what an operation of a history asks for.
type kind string

const (
	kindOpen     kind = "open"
	kindDeposit  kind = "deposit"
	kindWithdraw kind = "withdraw"
	kindState    kind = "state" // GetAggregate
	kindQuery    kind = "query" // with min_position
)

// outcome is how an operation has ended, as its client knows.
type outcome string

const (
	outcomeAnswered outcome = "answered" // a command is accepted, a read has rows
	outcomeRejected outcome = "rejected" // by a rule of the model
	outcomeVersion  outcome = "version"  // expected_version is not the aggregate's
	outcomeUnknown  outcome = "unknown"  // a command may take effect, at any time after its call
)

// operation is an operation of a client on one wallet.
type operation struct {
	Client int    `json:"client"`
	Via    string `json:"via"`
	Wallet string `json:"wallet"`
	Kind   kind   `json:"kind"`
	Amount int64  `json:"amount,omitempty"`
	// Key is the idempotency key, "" for none; Shared: other clients use it for the same command.
	Key    string `json:"key,omitempty"`
	Shared bool   `json:"shared,omitempty"`
	// Expected is the expected_version, -1 for none.
	Expected int64 `json:"expected"`
	// Since and Least describe the position that a query names: when the operation that it is from was called, and
	// the wallet's version there.
	Since time.Duration `json:"since,omitempty"`
	Least int64         `json:"least,omitempty"`

	// Call and Return are times since the history's begin. A command is sent again, under its key, until it is
	// answered: Call is of the first attempt, and Return of the last.
	Call     time.Duration `json:"call"`
	Return   time.Duration `json:"return"`
	Attempts int           `json:"attempts"`

	Outcome  outcome `json:"outcome"`
	Version  int64   `json:"version"` // of the wallet after it; of outcomeVersion the current one
	Balance  int64   `json:"balance"` // of reads
	Replayed bool    `json:"replayed,omitempty"`
}

func (o *operation) command() bool {
	return o.Kind == kindOpen || o.Kind == kindDeposit || o.Kind == kindWithdraw
}

func (o *operation) String() string {
	text := fmt.Sprintf("%s %s", o.Kind, o.Wallet)
	if o.Amount != 0 {
		text += fmt.Sprintf(" %d", o.Amount)
	}
	if o.Key != "" {
		text += " key " + o.Key
	}
	if o.Least > 0 {
		text += fmt.Sprintf(" from version %d", o.Least)
	}
	text += fmt.Sprintf(" → %s, version %d", o.Outcome, o.Version)
	if !o.command() {
		text += fmt.Sprintf(", balance %d", o.Balance)
	}
	return text
}

// history is what clients have done. Its methods may be called concurrently.
type history struct {
	began time.Time

	mu         sync.Mutex
	operations []*operation
	written    int             // of the clients that write
	resumed    []time.Duration // when NATS servers continued that had been suspended for long
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() time.Duration { return time.Since(h.began) }

// wallet returns the wallet that clients now use.
func (h *history) wallet() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("history-%d", h.written/walletOperations)
}

// len returns the number of operations that have ended.
func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.operations)
}

func (h *history) add(o *operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
	if o.Client < historyClients {
		h.written++
	}
}

// wallets returns the operations by wallet, in the order of their calls.
func (h *history) wallets() map[string][]*operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string][]*operation{}
	for _, o := range h.operations {
		all[o.Wallet] = append(all[o.Wallet], o)
	}
	for _, of := range all {
		slices.SortFunc(of, func(a, b *operation) int { return int(a.Call - b.Call) })
	}
	return all
}

// walletState is the state of a wallet in the sequential model.
type walletState struct {
	version, balance int64
	keys             string // of accepted commands that several clients send, with their versions: " KEY=VERSION "
}

// walletModel is what a wallet does if one command follows the other. A position-bound query reads the state at some
// moment after the operation that its position is from was called. Of a command with an unknown outcome it is not
// asked that it has taken effect: one that has not is the last in the order.
var walletModel = porcupine.Model{
	Init: func() any { return walletState{} },
	Step: func(before, input, _ any) (bool, any) {
		s, o := before.(walletState), input.(*operation)
		if !o.command() {
			return o.Version == s.version && o.Balance == s.balance && s.version >= o.Least, s
		}
		known := o.Outcome == outcomeAnswered
		if o.Shared {
			if _, rest, found := strings.Cut(s.keys, " "+o.Key+"="); found {
				version, _, _ := strings.Cut(rest, " ")
				return !known || o.Replayed && version == fmt.Sprint(o.Version), s
			}
		}
		accepted := s.accepts(o)
		if !accepted {
			return !known, s
		}
		s.version++
		if o.Kind == kindWithdraw {
			s.balance -= o.Amount
		} else {
			s.balance += o.Amount
		}
		if o.Shared {
			s.keys += fmt.Sprintf(" %s=%d ", o.Key, s.version)
		}
		return !known || o.Version == s.version, s
	},
	DescribeOperation: func(input, _ any) string { return input.(*operation).String() },
	DescribeState: func(state any) string {
		s := state.(walletState)
		return fmt.Sprintf("version %d, balance %d", s.version, s.balance)
	},
}

// accepts reports whether the model's rules accept a command.
func (s walletState) accepts(o *operation) bool {
	switch {
	case o.Expected >= 0 && o.Expected != s.version, (o.Kind == kindOpen) != (s.version == 0):
		return false
	}
	return o.Kind != kindWithdraw || s.balance >= o.Amount
}

// linearizable checks the accepted and unknown commands and the position-bound queries of each wallet. It writes the
// histories that are not linearizable, with porcupine's visualisation, into dir.
func (h *history) linearizable(t *testing.T, dir string) {
	t.Helper()
	for wallet, operations := range h.wallets() {
		var checked []porcupine.Operation
		for _, o := range operations {
			one := porcupine.Operation{
				ClientId: o.Client,
				Input:    o,
				Call:     int64(o.Call),
				Return:   int64(o.Return),
			}
			switch {
			case o.Kind == kindState, o.Outcome == outcomeRejected, o.Outcome == outcomeVersion:
				continue // these may be of an earlier state: see [history.stale]
			case o.Kind == kindQuery:
				one.Call = int64(o.Since)
			case o.Outcome == outcomeUnknown:
				one.Return = math.MaxInt64
			}
			checked = append(checked, one)
		}
		result, info := porcupine.CheckOperationsVerbose(walletModel, checked, time.Minute)
		if result == porcupine.Ok {
			continue
		}
		h.write(t, dir)
		path := filepath.Join(dir, wallet+".html")
		if err := porcupine.VisualizePath(walletModel, info, path); err != nil {
			t.Error(err)
		}
		t.Errorf("the history of %s, %d operations: %v (Illegal is not linearizable); see %s", wallet, len(checked),
			result, path)
	}
}

// write writes the history into dir, one operation per line.
func (h *history) write(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	encoder := json.NewEncoder(file)
	for _, o := range h.operations {
		if err := encoder.Encode(o); err != nil {
			t.Fatal(err)
		}
	}
}

// ledgerOf is a wallet's balances by version, as the journal has them: the first is that of version 0.
type ledgerOf []int64

// staleReads is how old the states are that reads and refusals were answered from.
type staleReads struct {
	Checked int           `json:"checked"`
	Stale   int           `json:"stale"` // are of a state that a command acknowledged before the call had changed
	Oldest  time.Duration `json:"oldest_ns"`
}

// stale checks the reads of GetAggregate, and the refusals, against the model of a deposed leader: each is answered
// from a state that the wallet had, and that was its state at most bound before the call. What a NATS server answers
// that was suspended, and does not know it yet, may be as old as its suspension.
func (h *history) stale(t *testing.T, truth map[string]ledgerOf, bound time.Duration) (all staleReads) {
	t.Helper()
	for wallet, operations := range h.wallets() {
		balances := truth[wallet]
		if balances == nil {
			balances = ledgerOf{0} // it was never opened
		}
		var accepted []*operation
		unknown := false
		for _, o := range operations {
			switch {
			case o.command() && o.Outcome == outcomeAnswered:
				accepted = append(accepted, o)
			case o.Outcome == outcomeUnknown:
				unknown = true
			}
		}
		for _, o := range operations {
			if o.command() && o.Outcome == outcomeAnswered || o.Outcome == outcomeUnknown || o.Kind == kindQuery {
				continue
			}
			all.Checked++
			version, found := o.from(balances, accepted, unknown)
			if !found {
				t.Errorf(
					"%v, called at %v: the wallet had no such state before the response; balances by version: %v",
					o, o.Call, balances,
				)
				continue
			}
			if age := ageOf(version, o.Call, accepted); age > 0 {
				all.Stale++
				all.Oldest = max(all.Oldest, age)
				if age > bound && !h.excused(o) {
					t.Errorf(
						"%v, called at %v via %s: that state, of version %d, had been replaced for %v, more than %v", o,
						o.Call, o.Via, version, age, bound,
					)
				}
			}
		}
	}
	return all
}

// afterResume is the time around the end of a suspension within which its server may answer without knowing of it.
const afterResume = time.Second

// excused reports whether an operation may have been answered by a NATS server that had just been resumed.
func (h *history) excused(o *operation) bool {
	return slices.ContainsFunc(h.resumed, func(at time.Duration) bool {
		return o.Return > at-afterResume && o.Call < at+afterResume
	})
}

// noteFault records the end of a fault that was undone.
func (h *history) noteFault(f fault) {
	if f.kind == "freeze" {
		h.resumed = append(h.resumed, h.now())
	}
}

// from returns the newest version of the wallet whose state explains the answer to a read, or a refusal.
func (o *operation) from(balances ledgerOf, accepted []*operation, unknown bool) (version int64, found bool) {
	begun := func(version int64) bool { // some command that may have made it was called before the answer
		return unknown || version == 0 ||
			slices.ContainsFunc(accepted, func(a *operation) bool { return a.Version == version && a.Call < o.Return })
	}
	for version := int64(len(balances)) - 1; version >= 0; version-- {
		s := walletState{version: version, balance: balances[version]}
		var explains bool
		switch {
		case o.Kind == kindState:
			explains = o.Version == version && o.Balance == s.balance
		case o.Outcome == outcomeVersion:
			explains = o.Version == version && o.Expected != version
		default:
			explains = !s.accepts(o)
		}
		if explains && begun(version) {
			return version, true
		}
	}
	return 0, false
}

// ageOf returns for how long the state of a version had been replaced at a time, as clients knew; 0: it had not.
func ageOf(version int64, at time.Duration, accepted []*operation) (age time.Duration) {
	for _, a := range accepted {
		if a.Version > version && a.Return < at {
			age = max(age, at-a.Return)
		}
	}
	return age
}

// movement returns what an event of a wallet adds to its balance.
func movement(t *testing.T, event journal.Event) int64 {
	t.Helper()
	var data struct{ Amount int64 }
	if err := json.Unmarshal(event.Data, &data); err != nil {
		t.Fatal(err)
	}
	if event.Type == "withdrawn" {
		return -data.Amount
	}
	return data.Amount
}
