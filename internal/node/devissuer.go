package node

import (
	"path/filepath"

	"github.com/headgate/headgate/gateway/auth"
)

// Names in the tokens of a development platform.
const (
	devIssuer   = "headgate-dev"
	devAudience = "headgate"
)

// OpenDevIssuer opens the signing key of the development platform whose data directory is data, and creates it if it
// does not exist.
func OpenDevIssuer(data string) (*auth.Issuer, error) {
	return auth.OpenIssuer(filepath.Join(data, "dev-signing-key.json"), devIssuer, devAudience)
}
