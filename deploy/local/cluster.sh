#!/usr/bin/env bash
# A whole platform as separate processes on this machine's loopback, for trying
# everything: NATS, 2 gateways, 2 aggregates, 3 projections, 2 runners, 2 controls.
#
#   deploy/local/cluster.sh [DIR]      data, settings and logs in DIR (./cluster)
#
# HEADGATE_PORTS is the first of its ports (18000), HEADGATE_WEBHOOK a host that webhooks of workflows may
# call, such as 127.0.0.1 (none).
#
# Ctrl-C stops all of it, and the next start finds its data again. `kill -9` one of the
# processes in DIR/pids, NATS (`nats`) included, to see how the others react;
# `DIR/start NAME` starts it again.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-./cluster}
mkdir -p "$dir"/{bin,logs,pids,settings}
dir=$(cd "$dir" && pwd)
base=${HEADGATE_PORTS:-18000}

echo "building headgate and nats-server"
(cd "$root" && go build -o "$dir/bin/headgate" ./cmd/headgate && go build -modfile=tools/go.mod -o "$dir/bin/nats-server" github.com/nats-io/nats-server/v2)
headgate=$dir/bin/headgate

# Keys of tokens, and the runners' credential for commands.
(umask 077 && "$headgate" keys --data "$dir" >"$dir/keys.json" &&
	"$headgate" token --data "$dir" --subject runner --tenant '*' --right command.submit --right command.internal --ttl 720h >"$dir/runner.token")

names="aggregate-1 aggregate-2 projection-1 projection-2 projection-3 gateway-1 gateway-2 runner-1 runner-2 control-1 control-2"
port() { echo $((base + $1)); }
nats=$(port 0)

# settings NAME ROLE PORT FURTHER: the settings of a process, by its name.
settings() {
	cat >"$dir/settings/$1.yaml" <<-YAML
		nats: {url: "nats://127.0.0.1:$nats", synced: true, nkey: "$dir/users/nkeys/$1.nk"}
		tenants: [acme, globex]
		log: warn
		$2:
		  server: {listen: "127.0.0.1:$3"}
		  node: {id: $1}
		$4
	YAML
	echo "$2" >"$dir/settings/$1.role"
}
for n in 1 2; do
	settings "gateway-$n" gateway "$(port $((10 * n)))" "  grpc: 127.0.0.1:$(port $((10 * n + 1)))
  admin: 127.0.0.1:$(port $((10 * n + 2)))
  auth: {issuer: headgate-dev, audience: headgate, keys: \"$dir/keys.json\", platform: [runner]}"
	settings "aggregate-$n" aggregate "$(port $((30 + n)))" "  grpc: 127.0.0.1:0"
	settings "runner-$n" runner "$(port $((50 + n)))" "  grpc: 127.0.0.1:0
  gateway: 127.0.0.1:$(port $((10 * n + 1)))
  credential: \"$dir/runner.token\"${HEADGATE_WEBHOOK:+
  webhooks: {allow: [\"$HEADGATE_WEBHOOK\"], private: true, plain: true\}}"
	settings "control-$n" control "$(port $((60 + n)))" "  grpc: 127.0.0.1:0"
done
for n in 1 2 3; do
	settings "projection-$n" projection "$(port $((40 + n)))" "  grpc: 127.0.0.1:0
  data: \"$dir/views-$n\""
done

cat >"$dir/start" <<SH
#!/usr/bin/env bash
# start NAME: starts one of the processes again.
if [ "\$1" = nats ]; then
	"$dir/bin/nats-server" -c "$dir/users/nats.conf" >>"$dir/logs/nats.log" 2>&1 &
	echo \$! >"$dir/pids/nats"
	exit
fi
"$headgate" serve "\$(cat "$dir/settings/\$1.role")" --config "$dir/settings/\$1.yaml" >>"$dir/logs/\$1.log" 2>&1 &
echo \$! >"$dir/pids/\$1"
SH
chmod +x "$dir/start"

stop() {
	trap - EXIT INT TERM
	# What calls others ends first. NATS is the last.
	for kind in runner control gateway aggregate projection nats; do
		for pid in "$dir"/pids/$kind*; do
			[ -e "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
		done
		for pid in "$dir"/pids/$kind*; do
			[ -e "$pid" ] || continue
			while kill -0 "$(cat "$pid")" 2>/dev/null; do sleep 0.05; done
			rm "$pid"
		done
	done
	echo "all processes have stopped; the data is in $dir"
}
trap stop EXIT
trap 'exit 0' INT TERM

# A NATS user per node, with the permissions of its role.
users=()
for name in $names; do users+=(--node "${name%-*}=$name"); done
"$headgate" nats-config "$dir/users" --listen "127.0.0.1:$nats" --monitor= --store "$dir/nats" "${users[@]}" >/dev/null
"$dir/start" nats
until (exec 3<>"/dev/tcp/127.0.0.1/$nats") 2>/dev/null; do
	kill -0 "$(cat "$dir/pids/nats")" 2>/dev/null || { echo "nats has ended:" >&2; tail -5 "$dir/logs/nats.log" >&2; exit 1; }
	sleep 0.05
done
# What operators' commands use: {role} is backup or setup.
echo "nats: {url: \"nats://127.0.0.1:$nats\", synced: true, nkey: \"$dir/users/nkeys/{role}.nk\"}" >"$dir/settings/operator.yaml"
"$headgate" nats-setup --config "$dir/settings/operator.yaml"
for name in $names; do "$dir/start" "$name"; done

gateway=http://127.0.0.1:$(port 10)
operator=$("$headgate" token --data "$dir" --subject operator --tenant '*' --ttl 24h \
	--right fleet.read --right fleet.admin --right audit.read --right runner.admin --right workflow.read \
	--right query.read --right aggregate.read --right events.read --right metrics.read --right command.submit \
	--right gateway.explain --right key.admin --right token.revoke --right credential.read)
acme=$("$headgate" token --data "$dir" --subject acme-app --tenant acme --ttl 24h \
	--right command.submit --right query.read --right aggregate.read --right events.read --right workflow.read --right metrics.read)
until curl -sf "$gateway/v1/control/fleet" -H "authorization: Bearer $operator" | grep -o '"answered":true' | grep -c . | grep -qx 11; do
	for name in $names; do
		kill -0 "$(cat "$dir/pids/$name")" 2>/dev/null || { echo "$name has ended:" >&2; tail -5 "$dir/logs/$name.log" >&2; exit 1; }
	done
	sleep 0.1
done
cat <<TEXT

11 nodes are ready. Logs, settings and process ids: $dir · Ctrl-C stops all of it.

  Control UI  $gateway/ui/   (sign in with \$OPERATOR)
  gateways    $gateway  http://127.0.0.1:$(port 20)
  operators   http://127.0.0.1:$(port 12)  http://127.0.0.1:$(port 22)   (/metrics /nodes)

export OPERATOR=$operator
export ACME=$acme

curl -s $gateway/v1/commands/wallet/ada/open -H "authorization: Bearer \$ACME" --json '{"payload":{"owner":"Ada"}}'
curl -s $gateway/v1/query/wallets -H "authorization: Bearer \$ACME" --json '{}'
TEXT
# Until Ctrl-C. A process that is killed, NATS included, stays down until it is started again.
tail -f /dev/null &
trap 'kill $!; exit 0' INT TERM
wait $!
