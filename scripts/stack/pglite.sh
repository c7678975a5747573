# shellcheck shell=bash
# PostgreSQL 17 in WASM with TimescaleDB, in memory: what the tests of the Timescale migrations talk to.

PGLITE_HOME="$STACK/pglite"

pglite_install() {
  cmp -s "$SCRIPTS/stack/pglite/package-lock.json" "$PGLITE_HOME/package-lock.json" &&
    [[ -d $PGLITE_HOME/node_modules ]] && return 0
  say "pglite: fetching it (about 20 MB, once)"
  rm -rf "$PGLITE_HOME"
  mkdir -p "$PGLITE_HOME"
  cp "$SCRIPTS/stack/pglite/package.json" "$SCRIPTS/stack/pglite/.npmrc" "$PGLITE_HOME/"
  cp "$SCRIPTS/stack/pglite/package-lock.json" "$PGLITE_HOME/package-lock.json"
  (cd "$PGLITE_HOME" && npm ci --ignore-scripts) >"$LOGS/pglite-install.log" 2>&1 ||
    { cat "$LOGS/pglite-install.log" >&2; die "pglite: npm could not fetch it, its output is above"; }
}

pglite_start() {
  local port
  if is_up pglite; then
    say "pglite: running on 127.0.0.1:$(remembered "$PORTS_FILE" pglite)"
    return 0
  fi
  port="$(port_for pglite)" || exit 1
  say "pglite: starting"
  PGLITE_STARTED_MS="$(now_ms)"
  launch pglite node "$SCRIPTS/stack/pglite/server.mjs" "$port" "$PGLITE_HOME"
}

pglite_answers() { # PORT
  grep -q 'pglite: ready' "$LOGS/pglite.log" && port_answers "$1"
}

pglite_await() {
  local port
  port="$(remembered "$PORTS_FILE" pglite)"
  [[ -n ${PGLITE_STARTED_MS-} ]] && await pglite 180 "$PGLITE_STARTED_MS" "127.0.0.1:$port" pglite_answers "$port"
  remember "$ENV_FILE" FLEETLOG_TEST_PGLITE_URL "postgres://postgres:pglite@127.0.0.1:$port/postgres?sslmode=disable"
  remember "$ENV_FILE" FLEETLOG_STACK_PGLITE "$PGLITE_HOME"
  remember "$ENV_FILE" FLEETLOG_STACK_PGLITE_SERVER "$SCRIPTS/stack/pglite/server.mjs"
}

pglite_stop() { stop_server pglite TERM; }
