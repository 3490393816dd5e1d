#!/usr/bin/env bash
# Makes the secrets of this deployment in ./secrets, once: a certificate per role, the key that tokens are
# signed with, the key set that gateways check them by, the runner's own token, the NATS users of all
# nodes, and the passwords of PostgreSQL. Repeated, it renews certificates past two thirds of their year;
# its arguments are further names and addresses of this machine in the gateway's certificate.
#
# `secrets.sh token --tenant acme --right query.read` issues a token. An identity provider's key set does
# as well: put its URL into headgate.yaml. `secrets.sh certs --new-authority` and the like replace the
# authority of the certificates (docs/serve.md).
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
[ -e secrets/hosts ] || printf 'localhost\n127.0.0.1\n' >secrets/hosts
options=()
if [ "${1:-}" = certs ]; then
	shift
	options=("$@")
else # the gateway's names, which later calls retain
	for host in "$@"; do echo "$host" >>secrets/hosts; done
fi
headgate certs "$PWD/secrets/tls" --name "gateway=gateway,$(LC_ALL=C sort -u secrets/hosts | paste -sd,)" --name aggregate=aggregate \
	--name projection=projection --name runner=runner --name control=control --name nats=nats --name nats-setup \
	${options[@]+"${options[@]}"}
password() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }
[ -e secrets/keys.json ] || headgate keys --data "$PWD/secrets" >secrets/keys.json
[ -e secrets/runner.token ] || headgate token --data "$PWD/secrets" --subject runner --tenant '*' --right command.submit --right command.internal --ttl 8760h >secrets/runner.token
[ -e secrets/postgres ] || password >secrets/postgres
[ -e secrets/views ] || password >secrets/views
nodes=()
for role in gateway aggregate projection runner control; do nodes+=(--node "$role=$role"); done
headgate nats-config "$PWD/secrets/nats" --listen 0.0.0.0:4222 --store /data \
	--tls-cert /etc/nats/tls/tls.crt --tls-key /etc/nats/tls/tls.key --tls-ca /etc/nats/tls/ca.crt "${nodes[@]}" >/dev/null
# Docker mounts each file into the containers of one role, under the owner and mode that it has
# here. On this host the folder is closed to all but its owner; in a container its user must be able
# to read the files of the role.
chmod 644 secrets/keys.json secrets/runner.token secrets/postgres secrets/views secrets/nats/*.conf secrets/nats/nkeys/*.nk secrets/tls/*/*
chmod 755 secrets/tls/*/
chmod 700 secrets
echo "secrets are in $PWD/secrets"
