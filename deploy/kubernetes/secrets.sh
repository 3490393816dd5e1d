#!/usr/bin/env bash
# Makes the secrets of this deployment in DIR (./secrets), once, and applies them: the keys of tokens,
# the runner's token, the passwords of PostgreSQL, and the NATS servers' configuration with a user
# per node. Repeat it after the number of pods below was raised. Pods mount the secrets of their
# role alone.
set -euo pipefail
dir=${1:-$(dirname "$0")/secrets}
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
	--monitor 0.0.0.0:8222 --store /data "${nodes[@]}"

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
