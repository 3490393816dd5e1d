package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

const (
	// historyPace is the time between two operations of a client.
	historyPace = 15 * time.Millisecond
	// walletOperations is the number of operations on a wallet before all clients continue with the next one: the check
	// of a history is exponential in what overlaps.
	walletOperations = 200
	// neverVersion is an expected_version that no wallet reaches.
	neverVersion = 1_000_000
	// sharedKeys is the number of commands of a wallet that several clients send, each under one key.
	sharedKeys = 4
	// attemptTimeout bounds one attempt of an operation.
	attemptTimeout = 10 * time.Second
)

// historian is a client that records a history of its operations on wallets, which it shares with others.
type historian struct {
	number  int
	apis    map[string]api // by name, how operations are sent
	queries api
	history *history
	random  *rand.Rand
	reads   bool // only reads states and sends commands that are refused

	// of the current wallet
	wallet         string
	version        int64 // the newest that it knows
	position       string
	since          time.Duration // when the operation that position is from was called
	positionWallet int64         // the wallet's version at position
}

// run does operations until stop is closed.
func (c *historian) run(ctx context.Context, stop <-chan struct{}) error {
	ticker := time.NewTicker(historyPace)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		key := fmt.Sprintf("history-%d-%d", c.number, n)
		var err error
		wallet := c.history.wallet()
		changed := wallet != c.wallet
		if changed {
			c.wallet, c.version, c.position, c.positionWallet = wallet, 0, "", 0
		}
		switch {
		case changed && !c.reads:
			err = c.command(ctx, &operation{
				Kind:     kindOpen,
				Key:      c.wallet + "-open",
				Shared:   true,
				Expected: -1,
			})
		case c.reads && n%2 == 0:
			err = c.command(ctx, &operation{
				Kind:     kindDeposit,
				Amount:   1,
				Key:      key,
				Expected: neverVersion,
			})
		case c.reads:
			err = c.state(ctx)
		default:
			err = c.step(ctx, key)
		}
		if err != nil {
			return err
		}
	}
}

// step does one operation of a random kind.
func (c *historian) step(ctx context.Context, key string) error {
	amount := 1 + c.random.Int64N(1000)
	o := &operation{
		Kind:     kindDeposit,
		Amount:   amount,
		Key:      key,
		Expected: -1,
	}
	switch kind := c.random.IntN(20); {
	case kind < 5:
	case kind < 8:
		o.Kind = kindWithdraw
		o.Amount = 3 * amount
	case kind < 9:
		o.Key = "" // its outcome may stay unknown
	case kind < 11:
		shared := c.random.Int64N(sharedKeys)
		o.Amount, o.Key, o.Shared = shared+1, fmt.Sprintf("%s-shared-%d", c.wallet, shared), true
	case kind < 13:
		o.Expected = c.version
	case kind < 16:
		return c.state(ctx)
	default:
		return c.query(ctx)
	}
	return c.command(ctx, o)
}

// via returns how an operation is sent.
func (c *historian) via() (string, api) {
	names := make([]string, 0, len(c.apis))
	for name := range c.apis {
		names = append(names, name)
	}
	slices.Sort(names)
	name := names[c.random.IntN(len(names))]
	return name, c.apis[name]
}

// begin starts an operation.
func (c *historian) begin(o *operation) {
	o.Client, o.Wallet, o.Call = c.number, c.wallet, c.history.now()
}

// end records an operation, and what it shows of the wallet.
func (c *historian) end(o *operation, position string) {
	o.Return = c.history.now()
	if o.Outcome == outcomeAnswered {
		c.version = max(c.version, o.Version)
		if position != "" && o.Version >= c.positionWallet {
			c.position, c.positionWallet, c.since = position, o.Version, o.Call
			if o.Kind == kindQuery {
				c.since = o.Since
			}
		}
	}
	c.history.add(o)
}

// temporary reports whether an operation that failed with an error is tried again, and that the outcome of a command
// is not known.
func temporary(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal, connect.CodeDeadlineExceeded,
		connect.CodeCanceled, connect.CodeResourceExhausted:
		return true
	}
	return false
}

// command sends a command until it is answered; one without a key is sent once.
func (c *historian) command(ctx context.Context, o *operation) error {
	c.begin(o)
	payload := map[string]any{"amount": o.Amount}
	if o.Kind == kindOpen {
		payload = map[string]any{"owner": "history"}
	}
	req := request("wallet", o.Wallet, string(o.Kind), o.Key, payload)
	if o.Expected >= 0 {
		req.ExpectedVersion = &o.Expected
	}
	var res *aggregatev1.SubmitResponse
	err := c.attempts(ctx, o, func(ctx context.Context, api api) (err error) {
		if res, err = api.commands.Submit(ctx, req); connect.CodeOf(err) == connect.CodeAborted && err != nil &&
			o.Expected < 0 {
			return connect.NewError(connect.CodeUnavailable,
				err.Error()) // other commands came in between, again and again
		}
		return err
	})
	switch {
	case err == nil:
		o.Outcome, o.Version, o.Replayed = outcomeAnswered, res.GetVersion(), res.GetReplayed()
	case temporary(err):
		o.Outcome = outcomeUnknown
	case connect.CodeOf(err) == connect.CodeFailedPrecondition:
		o.Outcome = outcomeRejected
	case connect.CodeOf(err) == connect.CodeAborted:
		o.Outcome, o.Version = outcomeVersion, currentVersion(err)
	default:
		return fmt.Errorf("%v via %s: %w", o, o.Via, err)
	}
	c.end(o, res.GetPosition())
	return nil
}

// attempts tries an operation until it is answered, each time at any of the nodes. A command without a key is tried
// once.
func (c *historian) attempts(ctx context.Context, o *operation, attempt func(context.Context, api) error) (err error) {
	waited := eventually(ctx, "no answer", func() (bool, error) {
		o.Attempts++
		via, api := c.via()
		o.Via = via
		bound, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		err = attempt(bound, api)
		return err == nil || !temporary(err) || o.command() && o.Key == "", err
	})
	if waited != nil && (err == nil || !temporary(err)) {
		return waited
	}
	return err
}

// currentVersion returns the version that an error about expected_version names.
func currentVersion(err error) int64 {
	if known, ok := errors.AsType[*connect.Error](err); ok {
		for _, detail := range known.Details() {
			if value, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
				if info, ok := value.(*errdetails.ErrorInfo); ok {
					version, _ := strconv.ParseInt(info.GetMetadata()["current_version"], 10, 64)
					return version
				}
			}
		}
	}
	return -1
}

// state reads the wallet's state at an aggregate node.
func (c *historian) state(ctx context.Context) error {
	o := &operation{Kind: kindState, Expected: -1}
	c.begin(o)
	var res *aggregatev1.GetAggregateResponse
	err := c.attempts(ctx, o, func(ctx context.Context, api api) (err error) {
		o.Call = c.history.now() // a read that failed has read nothing
		res, err = api.commands.GetAggregate(ctx,
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: o.Wallet})
		return err
	})
	switch {
	case err == nil:
		o.Version, o.Balance = res.GetVersion(), int64(res.GetState().GetFields()["balance"].GetNumberValue())
	case connect.CodeOf(err) != connect.CodeNotFound:
		return fmt.Errorf("%v via %s: %w", o, o.Via, err)
	}
	o.Outcome = outcomeAnswered
	c.end(o, "")
	return nil
}

// query reads the wallet's row, not older than the newest position that the client has.
func (c *historian) query(ctx context.Context) error {
	if c.position == "" {
		return nil
	}
	o := &operation{
		Kind:     kindQuery,
		Expected: -1,
		Since:    c.since,
		Least:    c.positionWallet,
	}
	c.begin(o)
	var res *projectionv1.QueryResponse
	err := c.attempts(ctx, o, func(ctx context.Context, _ api) (err error) {
		res, err = c.queries.queries.Query(ctx, &projectionv1.QueryRequest{
			View: "wallets", MinPosition: c.position,
			Query: &projectionv1.Query{Filter: fmt.Sprintf("wallet_id = %q", o.Wallet)},
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("%v: %w", o, err)
	}
	o.Outcome = outcomeAnswered
	for _, row := range res.GetRows() {
		fields := row.AsMap()
		o.Version, o.Balance = int64(fields["movements"].(float64))+1, int64(fields["balance"].(float64))
	}
	c.end(o, res.GetPosition())
	return nil
}

// historyWallet reports whether an aggregate is a wallet of a history.
func historyWallet(id string) bool { return strings.HasPrefix(id, "history-") }
