package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// interposed is a JetStream that calls before ahead of each publish, and publishes nothing if that fails. Reads from
// leaders use its connection.
type interposed struct {
	jetstream.JetStream

	conn   *nats.Conn
	before func() error
}

func (i *interposed) Conn() *nats.Conn { return i.conn }

func (i *interposed) PublishMsg(
	ctx context.Context, msg *nats.Msg, options ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	if err := i.before(); err != nil {
		return nil, err
	}
	return i.JetStream.PublishMsg(ctx, msg, options...)
}

// twoControls returns two control nodes of one platform. before is called before each publish of the first node.
func twoControls(ctx context.Context, t *testing.T) (first, second *Service, js *interposed) {
	t.Helper()
	second = issuing(ctx, t)
	js = &interposed{JetStream: second.js, conn: second.js.Conn(), before: func() error { return nil }}
	first = &Service{js: js, log: second.log}
	if err := first.openIssued(ctx, []byte("a secret of thirty-two bytes....")); err != nil {
		t.Fatal(err)
	}
	return first, second, js
}

// Two control nodes that revoke the same subject store both revocations: the later time of issue and the later expiry.
// A node that loses every race gives up, and reports that nothing is stored.
func TestRevoke_ConflictMergesTheOtherNodesRecord(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	first, second, js := twoControls(ctx, t)
	revoke := func(s *Service, issuedBefore, expires time.Time) (*controlv1.Revocation, error) {
		return revocationService{Service: s}.revoke(ctx, credentials.Revocation{Subject: "ada", Reason: "r"},
			timestamppb.New(issuedBefore), timestamppb.New(expires))
	}
	now := time.Now().UTC().Truncate(time.Second)
	publishes := 0
	js.before = func() error {
		if publishes++; publishes > 1 {
			return nil
		}
		_, err := revoke(second, now.Add(-time.Minute), now.Add(time.Hour))
		return err
	}
	got, err := revoke(first, now.Add(-time.Hour), now.Add(2*time.Hour))
	if err != nil || publishes != 2 || !got.GetIssuedBefore().AsTime().Equal(now.Add(-time.Minute)) ||
		!got.GetExpireTime().AsTime().Equal(now.Add(2*time.Hour+expiryMargin)) {
		t.Errorf("after %d attempts: %v, %v", publishes, got, err)
	}

	publishes = 0
	js.before = func() error {
		publishes++
		_, err := revoke(second, now.Add(time.Duration(publishes-maxTries-1)*time.Second), now.Add(3*time.Hour))
		return err
	}
	if _, err := revoke(first, now, now.Add(4*time.Hour)); connect.CodeOf(err) != connect.CodeAborted ||
		publishes != maxTries {
		t.Errorf("after %d lost races: %v", publishes, err)
	}

	unreachable := errors.New("the server is unreachable")
	publishes = 0
	js.before = func() error {
		publishes++
		return unreachable
	}
	if r, err := revoke(first, now, now.Add(5*time.Hour)); err == nil || r != nil || publishes != 1 {
		t.Errorf("a failed write is tried %d times: %v, %v", publishes, r, err)
	}
}

// A control node that cannot read the stored credentials changes none, although it could write.
func TestCredentials_NothingIsStoredUnlessRecordsAreRead(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	first, second, js := twoControls(ctx, t)
	revocation := credentials.Revocation{Subject: "ada", Reason: "r"}
	if _, err := (revocationService{Service: second}).revoke(ctx, revocation, nil, nil); err != nil {
		t.Fatal(err)
	}
	js.conn = natstest.Start(t).Conn()
	js.conn.Close()
	js.before = func() error {
		t.Error("a record is written without the earlier one")
		return nil
	}
	_, err := revocationService{Service: first}.revoke(ctx, revocation, nil, nil)
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a revocation: %v", err)
	}

	unloaded := &Service{js: second.js}
	if unloaded.issued.keys, err = credentials.OpenStore[credentials.APIKey](
		ctx, second.js, streams.BucketAPIKeys,
	); err != nil {
		t.Fatal(err)
	}
	err = apiKeyService{Service: unloaded}.admit(credentials.APIKey{})
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("an API key, before the known ones can be counted: %v", err)
	}
}
