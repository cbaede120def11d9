#!/usr/bin/env bash
# MLflow on PostgreSQL behind a password. Its secrets go from files into this process alone.
# tests/cluster/test_postgres.py starts it outside a container, with the variables below.
set -euo pipefail
umask 077

secrets=${SECRETS:-/run/secrets}
database=${DATABASE:-postgresql+psycopg2://mlflow@postgres/mlflow}
artifacts=${ARTIFACTS:-/shared}
host=${HOST:-0.0.0.0}
port=${PORT:-5000}

PGPASSWORD=$(< "$secrets/postgres_password")
MLFLOW_AUTH_ADMIN_PASSWORD=$(< "$secrets/mlflow_password")
MLFLOW_FLASK_SERVER_SECRET_KEY=$(< "$secrets/mlflow_cookie_key")
export PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

cat > "$MLFLOW_AUTH_CONFIG_PATH" << INI
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = $database
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
INI

exec mlflow server --app-name basic-auth --host "$host" --port "$port" --workers 2 \
  --allowed-hosts "mlflow:$port,localhost:$port,127.0.0.1:$port" \
  --backend-store-uri "$database" --artifacts-destination "$artifacts"
