#!/usr/bin/env bash
# Try it all: make the secrets that are missing, start Ray and MLflow, submit the quickstart, follow it.
set -euo pipefail
cd "$(dirname "$0")"

umask 077
mkdir -p secrets
for name in ray_token postgres_password mlflow_password mlflow_cookie_key; do
  [ -s "secrets/$name" ] || openssl rand -hex 32 > "secrets/$name"
done
printf '[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' "$(< secrets/mlflow_password)" \
  > secrets/mlflow_credentials
# The containers' user has uid 1000; Docker hands a file over with the owner and mode that it has here.
[ "$(id -u)" = 1000 ] || chown 1000 secrets/*

docker compose up --build --detach --wait
echo "Ray http://127.0.0.1:8265 (token: docker/secrets/ray_token)"
echo "MLflow http://127.0.0.1:5000 (user admin, password: docker/secrets/mlflow_password)"
there=(docker compose exec head stepwise)
cluster=(--address http://127.0.0.1:8265 --store /shared/stepwise)
"${there[@]}" submit jobs/quickstart.toml "${cluster[@]}" 'tracking.uri=http://mlflow:5000'
"${there[@]}" logs -f quickstart "${cluster[@]}"
