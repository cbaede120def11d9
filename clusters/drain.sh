#!/usr/bin/env bash
# Tell Ray that the node on this machine is about to be taken away: trials that train on it keep the step they are at
# and go on elsewhere. For a spot machine's notice, a pod's preStop hook, or before a machine is taken out by hand.
#
#   clusters/drain.sh [SECONDS] [NODE_ADDRESS]      SECONDS until it goes; its address where a machine has several nodes
set -euo pipefail

words=
while read -r raylet; do
  found=$(tr '\0' '\n' < "$raylet")
  if [ -z "${2:-}" ] || grep -qxF -e "--node_ip_address=$2" <<< "$found"; then
    words=$found
    break
  fi
done < <(grep -lzs -e 'raylet/raylet$' "${PROC:-/proc}"/[0-9]*/cmdline)
[ "$words" ] || { echo "no Ray node ${2:+at $2 }on this machine" >&2; exit 1; }
value() { sed -n "s/^--$1=//p" <<< "$words" | head -1; }
exec ray drain-node --address "$(value gcs-address)" --node-id "$(value node_id)" \
  --deadline-remaining-seconds "${1:-30}" --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the machine goes"
