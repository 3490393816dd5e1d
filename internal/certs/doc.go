// Package certs issues the certificates of a platform's processes, under a local authority: one per role, which
// names the role as nodes check it (spiffe://DOMAIN/role/ROLE) and the hosts under which the process is reached.
//
// It replaces files by renaming, so that package tlsfiles, which watches them, never reads half of one. It does not
// distribute them, and revokes none: a certificate is valid until it expires or its authority is no longer trusted.
package certs
