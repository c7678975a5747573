# shellcheck shell=bash
# PostgreSQL from the distribution, own data folder. Sourced by stack.sh.
#
# PostgreSQL refuses to run as root. As root the stack runs it as the user `postgres`, whose folder has to be reachable
# for that user: when the checkout isn't (a private home), the data lie under /var/tmp and the stack remembers where.

# The newest installed PostgreSQL; Debian keeps its binaries off the PATH.
postgres_bin() {
  local dir
  dir="$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)"
  if [[ -n $dir ]]; then
    echo "$dir"
  elif have initdb; then
    dirname "$(command -v initdb)"
  else
    return 1
  fi
}

as_postgres() {
  if [[ $(id -u) == 0 ]]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# Set once data exist; until then the place inside the checkout, if the server's user can get there.
postgres_home() {
  local home
  home="$(remembered "$PORTS_FILE" postgres-home)"
  echo "${home:-$STACK/postgres}"
}

postgres_choose_home() {
  local home
  home="$(data_home)/postgres"
  mkdir -p "$(data_home)"
  if ! as_postgres test -x "$(data_home)"; then
    home="/var/tmp/fleetlog-$(printf '%s' "$STACK" | cksum | cut -d ' ' -f 1)"
    say "postgres: the user postgres cannot reach $(data_home), its data go to $home"
  fi
  remember "$PORTS_FILE" postgres-home "$home"
}

postgres_init() { # HOME
  local home="$1" password
  password="$(head -c 18 /dev/urandom | base64 | tr '+/' 'AB')"
  mkdir -p "$home"
  printf '%s\n' "$password" >"$home/password"
  [[ $(id -u) == 0 ]] && chown -R postgres "$home"
  chmod 700 "$home"
  as_postgres "$(postgres_bin)/initdb" -D "$home/data" -U fleetlog --auth=scram-sha-256 --pwfile="$home/password" \
    --encoding=UTF8 --locale=C.UTF-8 >"$LOGS/postgres-init.log" 2>&1 ||
    { cat "$LOGS/postgres-init.log" >&2; die "postgres: initdb failed, its output is above"; }
}

postgres_start() {
  local home port
  if is_up postgres; then
    say "postgres: running on 127.0.0.1:$(remembered "$PORTS_FILE" postgres)"
    return 0
  fi
  [[ -n $(remembered "$PORTS_FILE" postgres-home) ]] || postgres_choose_home
  home="$(postgres_home)"
  port="$(port_for postgres)" || exit 1
  POSTGRES_STARTED_MS="$(now_ms)"
  if [[ ! -f $home/data/PG_VERSION ]]; then
    say "postgres: making the data folder"
    postgres_init "$home"
  fi
  say "postgres: starting"
  # The postmaster's own pid is what `down` needs, so it's started without pg_ctl; runuser would be in between.
  launch postgres "$SCRIPTS/stack/run-postgres.sh" "$(postgres_bin)" "$home/data" "$port"
}

postgres_answers() { # PORT
  "$(postgres_bin)/pg_isready" -q -h 127.0.0.1 -p "$1"
}

postgres_sql() { # SQL
  PGPASSWORD="$(cat "$(postgres_home)/password")" "$(postgres_bin)/psql" -qAtX -h 127.0.0.1 \
    -p "$(remembered "$PORTS_FILE" postgres)" -U fleetlog -d postgres -c "$1"
}

postgres_await() {
  local port home
  port="$(remembered "$PORTS_FILE" postgres)"
  home="$(postgres_home)"
  [[ -n ${POSTGRES_STARTED_MS-} ]] && await postgres 180 "$POSTGRES_STARTED_MS" "127.0.0.1:$port" postgres_answers "$port"
  if [[ -z $(postgres_sql "SELECT 1 FROM pg_database WHERE datname = 'fleetlog'") ]]; then
    postgres_sql 'CREATE DATABASE fleetlog' || die "postgres: CREATE DATABASE fleetlog failed"
  fi
  remember "$ENV_FILE" FLEETLOG_POSTGRES__URL \
    "postgres://fleetlog:$(cat "$home/password")@127.0.0.1:$port/fleetlog"
  remember "$ENV_FILE" FLEETLOG_STACK_POSTGRES_BIN "$(postgres_bin)"
}

postgres_stop() { stop_server postgres INT; }
postgres_wipe() {
  rm -rf "$(postgres_home)"
  forget "$PORTS_FILE" postgres-home
}
