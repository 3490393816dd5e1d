package fleet

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/streams"
)

// CredentialSetter applies what the platform decides about credentials.
type CredentialSetter interface {
	SetRevocations(set *auth.Revocations)
	RevocationsAway()
	SetIssuedKeys(keys []auth.IssuedKey) error
	IssuedKeysAway()
}

// outageCheck is the interval at which a follower checks whether NATS is reachable.
const outageCheck = time.Second

// Credentials are the revocations of tokens and the API keys that control has stored, as a gateway
// follows them. A gateway must not serve before [OpenCredentials] has returned: it would accept revoked
// credentials.
type Credentials struct {
	gateway     CredentialSetter
	revocations *credentials.Store[credentials.Revocation]
	keys        *credentials.Store[credentials.APIKey]
	log         zerolog.Logger

	mu sync.Mutex // serializes the calls of the gateway
	// away is true for the names of buckets whose changes are not received.
	away map[string]bool
}

// OpenCredentials applies the stored revocations and API keys.
func OpenCredentials(
	ctx context.Context, js jetstream.JetStream, gateway CredentialSetter, log zerolog.Logger,
) (*Credentials, error) {
	c := &Credentials{gateway: gateway, log: log, away: map[string]bool{}}
	var err error
	if c.revocations, err = credentials.OpenStore[credentials.Revocation](
		ctx, js, streams.BucketRevocations,
	); err != nil {
		return nil, err
	}
	if c.keys, err = credentials.OpenStore[credentials.APIKey](ctx, js, streams.BucketAPIKeys); err != nil {
		return nil, err
	}
	if err := c.revocations.Load(ctx); err != nil {
		return nil, err
	}
	if err := c.keys.Load(ctx); err != nil {
		return nil, err
	}
	c.applyRevocations()
	c.applyKeys()
	return c, nil
}

// Follow applies changes until ctx ends. outage reports whether NATS is unreachable: changes are then not
// received, and the gateway reports it.
func (c *Credentials) Follow(ctx context.Context, outage func() bool) {
	var running sync.WaitGroup
	running.Go(func() {
		c.revocations.Follow(ctx, func() { c.received(streams.BucketRevocations) }, func(err error) {
			c.lost(streams.BucketRevocations, err)
		})
	})
	running.Go(func() {
		c.keys.Follow(ctx, func() { c.received(streams.BucketAPIKeys) }, func(err error) {
			c.lost(streams.BucketAPIKeys, err)
		})
	})
	ticker := time.NewTicker(outageCheck)
	defer ticker.Stop()
	for out := false; ; {
		select {
		case <-ctx.Done():
			running.Wait()
			return
		case <-ticker.C:
		}
		switch now := outage(); {
		case now && !out:
			c.gateway.RevocationsAway()
			c.gateway.IssuedKeysAway()
			out = true
		case !now && out:
			c.again()
			out = false
		}
	}
}

// received applies the records of a bucket, whose changes are received.
func (c *Credentials) received(bucket string) {
	c.mu.Lock()
	delete(c.away, bucket)
	c.mu.Unlock()
	c.apply(bucket)
}

// lost reports that the changes of a bucket are not received.
func (c *Credentials) lost(bucket string, err error) {
	c.log.Warn().Err(err).Str("bucket", bucket).Dur("again_in_ms", followAgain).Msg(
		"revocations of tokens, or issued API keys, are not received; those known apply",
	)
	c.mu.Lock()
	c.away[bucket] = true
	c.mu.Unlock()
	if bucket == streams.BucketRevocations {
		c.gateway.RevocationsAway()
	} else {
		c.gateway.IssuedKeysAway()
	}
}

// again applies the records after an outage of NATS, unless their changes are still not received.
func (c *Credentials) again() {
	for _, bucket := range []string{streams.BucketRevocations, streams.BucketAPIKeys} {
		c.mu.Lock()
		away := c.away[bucket]
		c.mu.Unlock()
		if !away {
			c.apply(bucket)
		}
	}
}

func (c *Credentials) apply(bucket string) {
	if bucket == streams.BucketRevocations {
		c.applyRevocations()
	} else {
		c.applyKeys()
	}
}

// applyRevocations applies the known revocations, including expired ones, since the clock may be ahead and
// may be set back.
func (c *Credentials) applyRevocations() {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, err := c.revocations.All()
	if err != nil {
		return
	}
	list := make([]auth.Revocation, 0, len(known))
	for id, entry := range known {
		r := entry.Value
		if r.Withdrawn {
			continue
		}
		revocation := auth.Revocation{
			Tenant:       r.Tenant,
			Issuer:       r.Issuer,
			TokenID:      r.TokenID,
			Subject:      r.Subject,
			IssuedBefore: r.IssuedBefore,
		}
		if err := revocation.Check(); err != nil {
			c.log.Error().Err(err).Str("id", id).Msg("a stored revocation of tokens is invalid: it has no effect")
			continue
		}
		list = append(list, revocation)
	}
	set, err := auth.NewRevocations(list)
	if err != nil {
		c.log.Error().Err(err).Msg("the stored revocations of tokens cannot be applied; those known apply")
		c.gateway.RevocationsAway()
		return
	}
	c.gateway.SetRevocations(set)
	if _, _, rejected := c.revocations.Size(); rejected > 0 {
		c.log.Error().Int("values", rejected).Msg(
			"stored revocations of tokens were not written by control: they have no effect",
		)
		c.gateway.RevocationsAway()
	}
}

// applyKeys applies the known API keys.
func (c *Credentials) applyKeys() {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, err := c.keys.All()
	if err != nil {
		return
	}
	list := make([]auth.IssuedKey, 0, len(known))
	for id, entry := range known {
		key := entry.Value
		if !key.Revoked.IsZero() || key.ID != id {
			continue
		}
		list = append(list, auth.IssuedKey{
			ID:       key.ID,
			Hash:     key.Hash,
			Tenants:  key.Tenants,
			Rights:   key.Rights,
			Expires:  key.Expires,
			Revision: entry.Revision,
		})
	}
	if err := c.gateway.SetIssuedKeys(list); err != nil {
		c.log.Error().Err(err).Msg("stored API keys are invalid: they are rejected")
	}
	if _, _, rejected := c.keys.Size(); rejected > 0 {
		c.log.Error().Int("values", rejected).Msg("stored API keys were not issued by control: they are rejected")
	}
}
