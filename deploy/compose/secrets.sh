#!/usr/bin/env bash
# Makes the secrets of this deployment in ./secrets, once: the key that tokens are
# signed with, the key set that gateways check them by, the runner's own token, the
# database's password. `secrets.sh token --tenant acme --right query.read` issues a
# token. An identity provider's key set does as well: put its URL into headgate.yaml.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
headgate() { (cd ../.. && go run ./cmd/headgate "$@"); }
if [ "${1:-}" = token ]; then
	shift
	headgate token --data "$PWD/secrets" "$@"
	exit
fi
[ -e secrets/keys.json ] || headgate keys --data "$PWD/secrets" >secrets/keys.json
[ -e secrets/runner.token ] || headgate token --data "$PWD/secrets" --subject runner --tenant '*' --right command.submit --right command.internal --ttl 8760h >secrets/runner.token
[ -e secrets/postgres ] || head -c 24 /dev/urandom | base64 | tr -d '/+=\n' >secrets/postgres
# The containers' user reads them; the signing key stays here.
chmod 644 secrets/keys.json secrets/runner.token secrets/postgres
chmod 711 secrets
echo "secrets are in $PWD/secrets"
