#!/usr/bin/env bash
# Every variant, one after another, into one store: stages that variants share are trained once. Continues where it stopped.
set -euo pipefail
store=$(realpath "${1:?usage: run.sh STORE}")
cd "$(dirname "$0")"
run() { stepwise run base.toml --store "$store" name="ablation-$1" "${@:2}"; }
run base
run no-smoothing schedule.smoothing_lambda=inf
run reset training.reset_optimizer=true
run right schedule.removal_side=right
run right-reset schedule.removal_side=right training.reset_optimizer=true
run all-at-once schedule.tokens_per_stage=10
