#!/usr/bin/env bash
# A Ray cluster on the loopback addresses of this machine: a head (127.0.0.1) and workers (127.0.0.2 and on), behind
# a token. It runs until Ctrl-C, ends only what it started, and is there to try `stepwise submit` on.
#
#   clusters/local.sh [CPUS_PER_NODE]          WORKERS=1 PORT=6379 DASHBOARD_PORT=8265 TOKEN=~/.ray/auth_token
#   clusters/local.sh join ADDRESS [CPUS]      one more worker node of it, say at 127.0.0.4
set -euo pipefail

join=
[ "${1:-}" != join ] || { join=$2; shift 2; }
cpus=${1:-1}
workers=${WORKERS:-1}
port=${PORT:-6379}
dashboard_port=${DASHBOARD_PORT:-8265}
token=${TOKEN:-$HOME/.ray/auth_token}

if [ "$join" ] && [ ! -s "$token" ]; then
  echo "no token in $token: give the TOKEN that the cluster was started with" >&2
  exit 1
fi
(umask 077 && mkdir -p "$(dirname "$token")")
[ -s "$token" ] || (umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' > "$token")
chmod 600 "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS RAY_AUTH_TOKEN

# Short: the path of a socket below it has at most 107 characters.
folder=$(mktemp -d /tmp/stepwise-ray.XXXX)
end() {
  trap '' INT TERM
  kill "${nodes[@]}" 2> /dev/null || true
  wait
  rm -rf "$folder"
}
nodes=()
declare -A names
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() { # NAME ADDRESS OPTION...
  mkdir "$folder/$1"
  # Two nodes of one machine: no fixed ports for workers and agents.
  # --block keeps it in the foreground; ending it ends the node.
  setsid ray start --block --node-ip-address "$2" --num-cpus "$cpus" --num-gpus 0 --object-store-memory 100000000 \
    --temp-dir "$folder/$1" --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0 --disable-usage-stats \
    "${@:3}" > "$folder/$1/log" 2>&1 &
  nodes+=($!)
  names[$!]=$1
  echo "$1 node: process $!, $2, log $folder/$1/log"
}

# Until every node has ended; the end of a node's log is shown, as the log goes with the folder.
follow() {
  while [ ${#nodes[@]} -gt 0 ]; do
    code=0
    wait -n -p gone "${nodes[@]}" || code=$?
    echo "${names[$gone]} node ended with code $code:"
    tail -n 5 "$folder/${names[$gone]}/log"
    left=()
    for node in "${nodes[@]}"; do [ "$node" = "$gone" ] || left+=("$node"); done
    nodes=("${left[@]}")
  done
}

if [ "$join" ]; then
  start worker "$join" --address "127.0.0.1:$port"
  follow
  exit "$code"
fi

# Only the head runs the light driver of each trial: losing a worker node costs a stage, not a trial.
start head 127.0.0.1 --head --port "$port" --ray-client-server-port $((port + 1)) \
  --dashboard-host 127.0.0.1 --dashboard-port "$dashboard_port" --resources '{"stepwise_driver": 1000}'
until grep -qs "Ray runtime started" "$folder/head/log"; do
  kill -0 "${nodes[0]}" 2> /dev/null || { cat "$folder/head/log" >&2; exit 1; }
  sleep 0.5
done
for ((n = 1; n <= workers; n++)); do
  start "worker$n" "127.0.0.$((n + 1))" --address "127.0.0.1:$port"
done
echo "dashboard http://127.0.0.1:$dashboard_port, token in $token; Ctrl-C ends it"
follow
