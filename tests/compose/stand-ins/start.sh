#!/bin/bash
# Imitates the official image's entry point for the variables of docker-compose.yml: creates user,
# password and name of a new database, then executes the command.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" --encoding UTF8 --no-locale \
    --auth-local trust --auth-host scram-sha-256
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --options "-c listen_addresses='' -c unix_socket_directories=/tmp" start
  if [ "$POSTGRES_DB" != postgres ]; then
    createdb --host /tmp --username "$POSTGRES_USER" "$POSTGRES_DB"
  fi
  pg_ctl --wait stop
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp
