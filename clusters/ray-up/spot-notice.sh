#!/usr/bin/env bash
# On an AWS spot machine: wait for the notice that it is taken away (two minutes before), and tell Ray.
set -euo pipefail

metadata=${METADATA:-http://169.254.169.254}/latest
until
  token=$(wget -qO- --method=PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") &&
    wget -qO- --header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action"
do
  sleep 5
done
until "$(dirname "$0")/../drain.sh" 110; do # Ray may not answer at this moment
  sleep 2
done
