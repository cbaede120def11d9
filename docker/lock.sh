#!/usr/bin/env bash
# Write requirements.lock and requirements-cuda.lock: the versions of constraints.txt and the SHA-256 of every file that
# PyPI has of them. Needs `pip install uv`.
set -euo pipefail
cd "$(dirname "$0")/.."

all=$(printf 'boto3\nsetuptools\n' | uv pip compile pyproject.toml - --extra cluster --extra server --extra s3 --extra lora \
  --constraints docker/constraints.txt --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
  --generate-hashes --no-annotate --no-header --quiet)
# A line that begins a package says where it and its hashes go: torch's own are another image's.
split() {
  awk -v cuda="$1" '/^[a-z]/ { here = (/^(torch|triton|nvidia-|cuda-)/ ? 1 : 0) } here == cuda' <<< "$all"
}
split 0 > docker/requirements.lock
split 1 > docker/requirements-cuda.lock
