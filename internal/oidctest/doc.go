// Package oidctest is an OpenID provider for tests, on a loopback address: discovery (OpenID Connect
// Discovery 1.0), a JWK set with rotation, the authorization code flow with PKCE (RFC 7636), rotating
// refresh tokens (RFC 9700 §4.14.2), their revocation (RFC 7009) and logout (OpenID Connect RP-Initiated Logout 1.0).
//
// It is strict where a client must be correct: redirect URIs are compared byte for byte, S256 is
// required, a code is valid once, and the reuse of a refresh token ends its session. It asks its user
// nothing: the user that [Provider.SignIn] names is signed in.
package oidctest
