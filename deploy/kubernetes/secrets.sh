#!/usr/bin/env bash
# Makes the secrets of this deployment in DIR (./secrets), once, and applies them: a certificate per role, the
# keys of tokens, the runner's token, the passwords of PostgreSQL, and the NATS servers' configuration with
# a user per node. Repeat it after the number of pods below was raised, and before certificates are a year old: it
# renews those past two thirds. Pods mount the secrets of their role alone; the authority's key (tls/ca.key) stays here.
#
#   HOSTS=api.example.com secrets.sh [DIR] [FLAGS of headgate certs, such as --new-authority]
#
# HOSTS are the names by which clients reach the gateway, with commas.
set -euo pipefail
dir=${1:-$(dirname "$0")/secrets}
shift || true
umask 077
mkdir -p "$dir"
headgate=${HEADGATE:-headgate}
namespace=headgate

[ -e "$dir/keys.json" ] || "$headgate" keys --data "$dir" >"$dir/keys.json"
[ -e "$dir/runner.token" ] || "$headgate" token --data "$dir" --subject runner --tenant '*' --right command.submit --right command.internal --ttl 8760h >"$dir/runner.token"
for name in password views; do
	[ -e "$dir/$name" ] || head -c 24 /dev/urandom | base64 | tr -d '/+=\n' >"$dir/$name"
done

declare -A pods=([gateway]=2 [aggregate]=2 [projection]=3 [runner]=2 [control]=2)
nodes=()
for role in "${!pods[@]}"; do
	for ((n = 0; n < pods[$role]; n++)); do nodes+=(--node "$role=$role-$n"); done
done
"$headgate" nats-config "$dir/nats" --name '$POD_NAME' --server nats-0.nats --server nats-1.nats --server nats-2.nats \
	--tls-cert /etc/nats-tls/tls.crt --tls-key /etc/nats-tls/tls.key --tls-ca /etc/nats-tls/ca.crt \
	--monitor 0.0.0.0:8222 --store /data "${nodes[@]}"

# Nodes and NATS servers are reached under the names of their pods, the gateway, NATS and PostgreSQL under those of
# their services.
[ -n "${HOSTS:-}" ] && echo "$HOSTS" >"$dir/hosts"
[ -e "$dir/hosts" ] || echo localhost >"$dir/hosts"
service=$namespace.svc
"$headgate" certs "$dir/tls" --name "gateway=gateway,gateway.$service,gateway.$service.cluster.local,*.gateways,$(cat "$dir/hosts")" \
	--name 'aggregate=*.aggregate' --name 'projection=*.projection' --name 'runner=*.runner' --name 'control=*.control' \
	--name 'nats=nats,*.nats' --name nats-setup --name postgres=postgres "$@"

kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f -
secret() {
	kubectl -n "$namespace" create secret generic "$@" --dry-run=client -o yaml | kubectl apply -f -
}
secret gateway --from-file="$dir/keys.json"
secret runner --from-file="$dir/runner.token"
secret postgres --from-file="$dir/password" --from-file="$dir/views"
secret views --from-file="$dir/views"
secret nats --from-file="$dir/nats/nats.conf" --from-file="$dir/nats/users.conf"
secret nats-setup --from-file=nkey="$dir/nats/nkeys/setup.nk"
for role in "${!pods[@]}"; do
	files=()
	for ((n = 0; n < pods[$role]; n++)); do files+=(--from-file="$dir/nats/nkeys/$role-$n.nk"); done
	secret "nats-$role" "${files[@]}"
done
for role in "${!pods[@]}" nats nats-setup postgres; do
	secret "tls-$role" --from-file="$dir/tls/$role/tls.crt" --from-file="$dir/tls/$role/tls.key" --from-file="$dir/tls/$role/ca.crt"
done
