package gateway

import (
	"context"
	"sync"

	"github.com/headgate/headgate/gateway/auth"
)

// refreshKeys refreshes the signing keys of tokens until ctx ends, and ends the streams that were
// admitted by a revoked key.
func (g *Gateway) refreshKeys(ctx context.Context) error {
	var running sync.WaitGroup
	for _, issuer := range g.config.Auth.Issuers {
		log := g.log.With().Str("issuer", issuer.Issuer).Logger()
		running.Go(func() {
			issuer.Keys.Run(ctx, func() {
				log.Info().Msg("the signing keys of tokens have changed")
				g.endRevoked(g.live.all()...)
			}, func(err error) {
				log.Error().Err(err).Msg(
					"refreshing the signing keys of tokens failed; the current keys stay in use, until they are too old",
				)
			})
		})
	}
	running.Wait()
	<-ctx.Done()
	return nil
}

// followAuthorities reloads the authorities of clients' certificates until ctx ends, and ends the streams whose
// certificates are of a removed one.
func (g *Gateway) followAuthorities(ctx context.Context) error {
	var running sync.WaitGroup
	for _, authority := range g.config.Auth.Authorities {
		log := g.log.With().Str("authority", authority.Name).Logger()
		running.Go(func() {
			authority.Certificates.Run(ctx, func() {
				log.Info().Msg("the authority of clients' certificates has changed")
				g.endRevoked(g.live.all()...)
			}, func(err error) {
				log.Error().Err(err).Msg(
					"reloading the authority of clients' certificates failed; the current one stays in use",
				)
			})
		})
	}
	running.Wait()
	<-ctx.Done()
	return nil
}

// followSignIns reads the origins that pages call to sign in until ctx ends.
func (g *Gateway) followSignIns(ctx context.Context) error {
	var running sync.WaitGroup
	for _, origins := range g.config.SignIns {
		running.Go(func() {
			origins.Run(ctx, func(err error) {
				g.log.Warn().Err(err).Msg("the endpoints of a provider are unknown: operators cannot sign in to the " +
					"Control UI where they are not at the issuer's origin")
			})
		})
	}
	running.Wait()
	<-ctx.Done()
	return nil
}

// followAPIKeys reloads the API keys from their source until ctx ends, and ends the streams that
// were admitted by a revoked key.
func (g *Gateway) followAPIKeys(ctx context.Context) error {
	if g.config.Auth.APIKeys == nil {
		<-ctx.Done()
		return nil
	}
	g.config.Auth.APIKeys.Run(ctx, func() {
		g.log.Info().Msg("the API keys have changed")
		g.endRevoked(g.live.all()...)
	}, func(err error) {
		g.log.Error().Err(err).Msg("reloading the API keys failed; the current keys stay in use")
	})
	return nil
}

// SetRevocations replaces the platform's revocations of tokens, and ends the streams that revoked
// tokens have admitted.
func (g *Gateway) SetRevocations(set *auth.Revocations) { g.revoke(auth.RevocationsPlatform, set) }

// RevocationsAway reports that the platform's revocations are not received: the known ones apply.
func (g *Gateway) RevocationsAway() { g.verifier.RevocationsAway(auth.RevocationsPlatform) }

// SetIssuedKeys replaces the API keys that the platform has issued, and ends the streams that were
// admitted by a key which is no longer valid. It returns the errors of invalid keys.
func (g *Gateway) SetIssuedKeys(keys []auth.IssuedKey) error {
	err := g.verifier.SetIssuedKeys(keys)
	g.endRevoked(g.live.all()...)
	return err
}

// IssuedKeysAway reports that changes of the API keys which the platform issues are not received. The
// known keys stay valid.
func (g *Gateway) IssuedKeysAway() { g.verifier.IssuedKeysAway() }

func (g *Gateway) revoke(source string, set *auth.Revocations) {
	g.verifier.SetRevocations(source, set)
	g.endRevoked(g.live.all()...)
}

// followRevocations reloads the list of revocations of the settings until ctx ends.
func (g *Gateway) followRevocations(ctx context.Context) error {
	if g.config.Auth.Revocations == nil {
		<-ctx.Done()
		return nil
	}
	g.config.Auth.Revocations.Run(ctx, func(set *auth.Revocations) {
		g.log.Info().Msg("the list of revoked tokens has changed")
		g.revoke(auth.RevocationsFile, set)
	}, func(err error) {
		g.verifier.RevocationsAway(auth.RevocationsFile)
		g.log.Error().Err(err).Msg("reloading the list of revoked tokens failed; the former list stays in use")
	})
	return nil
}
