#!/usr/bin/env bash
# Tell Ray that the node on this machine is about to be taken away: trials that train on it keep the step they are at
# and go on elsewhere. For a spot machine's notice, a pod's preStop hook, or before taking a machine out by hand.
#
#   clusters/drain.sh [SECONDS] [NODE_ADDRESS]      SECONDS until it goes; its address where a machine has several nodes
set -euo pipefail

raylet=$(pgrep -af "raylet/raylet .*--node_ip_address=${2:-}" | head -1)
node=$(grep -o -m1 -e '--node_id=[0-9a-f]*' <<< "$raylet" | head -1)
gcs=$(grep -o -m1 -e '--gcs-address=[^ ]*' <<< "$raylet" | head -1)
exec ray drain-node --address "${gcs#*=}" --node-id "${node#*=}" --deadline-remaining-seconds "${1:-30}" \
  --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the machine is taken away"
