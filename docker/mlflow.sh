#!/usr/bin/env bash
# MLflow on PostgreSQL behind a password. Its secrets go from files into this process alone.
set -euo pipefail
umask 077

PGPASSWORD=$(< /run/secrets/postgres_password)
MLFLOW_AUTH_ADMIN_PASSWORD=$(< /run/secrets/mlflow_password)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(< /run/secrets/mlflow_cookie_key)
export PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_AUTH_CONFIG_PATH=/tmp/auth.ini MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

cat > "$MLFLOW_AUTH_CONFIG_PATH" << 'INI'
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = postgresql://mlflow@postgres/mlflow
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
INI

exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers 2 \
  --allowed-hosts mlflow:5000,localhost:5000,127.0.0.1:5000 \
  --backend-store-uri postgresql://mlflow@postgres/mlflow --artifacts-destination /shared
