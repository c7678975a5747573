#!/usr/bin/env bash
# Becomes the PostgreSQL server: run-postgres.sh BIN DATA PORT. As root, `setpriv` changes the user and then *is* the
# server (runuser would stay in between as its parent, and its pid would not be the server's).
set -euo pipefail
bin="$1" data="$2" port="$3"
server=("$bin/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories=
  -c max_connections=200 -c shared_buffers=128MB -c max_wal_size=2GB -c timezone=UTC -c log_timezone=UTC)
if [[ $(id -u) == 0 ]]; then
  exec setpriv --reuid postgres --regid postgres --init-groups "${server[@]}"
fi
exec "${server[@]}"
