#!/usr/bin/env bash
# Makes the secrets of this deployment in ./secrets, once: the key that tokens are signed with, the
# key set that gateways check them by, the runner's own token, the NATS users of all nodes, and the
# passwords of PostgreSQL. `secrets.sh token --tenant acme --right query.read` issues a token. An
# identity provider's key set does as well: put its URL into headgate.yaml.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
headgate() { # the program that $HEADGATE names, or else that of this repository
	if [ -n "${HEADGATE:-}" ]; then "$HEADGATE" "$@"; else (cd ../.. && go run ./cmd/headgate "$@"); fi
}
if [ "${1:-}" = token ]; then
	shift
	headgate token --data "$PWD/secrets" "$@"
	exit
fi
password() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }
[ -e secrets/keys.json ] || headgate keys --data "$PWD/secrets" >secrets/keys.json
[ -e secrets/runner.token ] || headgate token --data "$PWD/secrets" --subject runner --tenant '*' --right command.submit --right command.internal --ttl 8760h >secrets/runner.token
[ -e secrets/postgres ] || password >secrets/postgres
[ -e secrets/views ] || password >secrets/views
nodes=()
for role in gateway aggregate projection runner control; do nodes+=(--node "$role=$role"); done
headgate nats-config "$PWD/secrets/nats" --listen 0.0.0.0:4222 --store /data "${nodes[@]}" >/dev/null
# Docker mounts each file into the containers of one role, under the owner and mode that it has
# here. On this host the folder is closed to all but its owner; in a container its user must be able
# to read the files of the role.
chmod 644 secrets/keys.json secrets/runner.token secrets/postgres secrets/views secrets/nats/*.conf secrets/nats/nkeys/*.nk
chmod 700 secrets
echo "secrets are in $PWD/secrets"
