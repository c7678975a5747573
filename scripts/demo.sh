#!/usr/bin/env bash
# `make demo`: from nothing to a proof, on real servers in .stack/. A second run works on what is there.
# usage: scripts/demo.sh [stop]     stop: only end the projectors that a demo left running
#
# DEMO_UNITS, DEMO_RATE and DEMO_EVENTS change the simulated fleet (200, 500/s, 15000).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=stack/common.sh
source scripts/stack/common.sh
# shellcheck source=stack/postgres.sh
source scripts/stack/postgres.sh # is_up knows the servers' folders by it

UNITS="${DEMO_UNITS:-200}"
RATE="${DEMO_RATE:-500}"
EVENTS="${DEMO_EVENTS:-15000}"
RECORDING=data/vda5050/A.jsonl.zst
# Between two looks at the live status.
STATUS_EVERY_S=5
# How long catching up may take before the demo calls it a failure.
CATCH_UP_S=180

fleetlog() { "$BINARY" "$@"; }

step() { # TITLE
  say ""
  say "== $1"
}

# --- the projectors ------------------------------------------------------------------------------------------------

# The pid, if the process still is the one that was started here: its environment names this checkout's folder.
run_pid() {
  local pid
  pid="$(pid_of run)" && [[ -n $pid ]] || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "FLEETLOG_RUN__STATE_DIR=$STACK/run" && echo "$pid"
}

stop_run() {
  local pid
  if ! pid="$(run_pid)"; then
    rm -f "$PIDS/run"
    return 0
  fi
  kill -TERM "$pid"
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  if kill -0 "$pid" 2>/dev/null; then
    say "run: did not stop within 20 s, killing process $pid"
    kill -KILL "$pid"
  fi
  rm -f "$PIDS/run"
  say "run: stopped"
}

# GET without curl; the body is after the empty line.
http_get() ( # PATH
  exec 3<>"/dev/tcp/127.0.0.1/$HTTP_PORT" || exit 1
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  cat <&3
) 2>/dev/null

is_ready() { http_get /readyz | head -n 1 | grep -q ' 200'; }

start_run() {
  local run_started_ms
  stop_run
  HTTP_PORT="$(port_for run-http)"
  run_started_ms="$(now_ms)"
  FLEETLOG_RUN__HTTP_ADDRESS="127.0.0.1:$HTTP_PORT" FLEETLOG_RUN__STATE_DIR="$STACK/run" launch run "$BINARY" run
  await run 60 "$run_started_ms" "http://127.0.0.1:$HTTP_PORT/metrics (log: .stack/log/run.log)" is_ready
}

# --- numbers -------------------------------------------------------------------------------------------------------

# Quantiles of what was observed between two looks at a Prometheus histogram, over all projections, in milliseconds;
# linear within a bucket, as Prometheus' own histogram_quantile.
quantiles() { # METRIC BEFORE AFTER
  awk -v metric="$1_bucket" '
    index($1, metric "{") == 1 {
      match($1, /le="[^"]*"/)
      le = substr($1, RSTART + 4, RLENGTH - 5)
      if (FILENAME == ARGV[1]) { before[le] += $2 } else { after[le] += $2 }
    }
    function quantile(q,   wanted, i, below, low) {
      wanted = q * total
      for (i = 1; i <= n; i++) {
        if (seen[bound[i]] >= wanted) {
          low = i > 1 ? bound[i - 1] : 0
          below = i > 1 ? seen[bound[i - 1]] : 0
          return low + (bound[i] - low) * (wanted - below) / (seen[bound[i]] - below)
        }
      }
      return bound[n]
    }
    END {
      for (le in after) {
        count = after[le] - before[le]
        if (le == "+Inf") { total = count } else { n++; bound[n] = le + 0; seen[le + 0] = count }
      }
      if (total == 0) { exit 1 }
      for (i = 2; i <= n; i++) { for (j = i; j > 1 && bound[j - 1] > bound[j]; j--) { t = bound[j]; bound[j] = bound[j - 1]; bound[j - 1] = t } }
      printf "p50 %.1f ms, p99 %.1f ms, %d events\n", quantile(0.5) * 1000, quantile(0.99) * 1000, total
    }' "$2" "$3"
}

# Rows of a table, asked of the database itself where psql is at hand.
rows() { # TABLE
  local psql=psql
  [[ -x ${FLEETLOG_STACK_POSTGRES_BIN-}/psql ]] && psql="$FLEETLOG_STACK_POSTGRES_BIN/psql"
  "$psql" -qAtX "$FLEETLOG_POSTGRES__URL" -c "SELECT count(*) FROM $1" 2>/dev/null || echo "(no psql here)"
}

# Keys of a pattern, asked of Redis itself where redis-cli is at hand.
keys() { # PATTERN
  have redis-cli || { echo "(no redis-cli here)"; return 0; }
  redis-cli -u "$FLEETLOG_REDIS__URL" --scan --pattern "$1" 2>/dev/null | wc -l | tr -d ' '
}

dead_letters() { fleetlog dlq list --limit 1000000 --format json | grep -c '"place"' || true; }

summary() { # VERIFY_CODE
  local telemetry unit_events task_events events=""
  telemetry="$(rows telemetry)" unit_events="$(rows unit_event)" task_events="$(rows task_event)"
  [[ $telemetry$unit_events$task_events == *[!0-9]* ]] || events="$((telemetry + unit_events + task_events)), of which "
  say ""
  say "-- what is there now ------------------------------------------------------------"
  say "history rows          $events$telemetry telemetry, $unit_events unit_event, $task_events task_event"
  say "hot entities          $(keys 'UnitConsensus@*') UnitConsensus, $(keys 'unit:*') unit, $(keys 'task:*') task"
  say "dead letters          $(dead_letters)"
  say "produce to visible    $(quantiles fleetlog_visible_seconds "$LOGS/metrics-before" "$LOGS/metrics-after" ||
    echo 'nothing was observed')"
  if (($1 == 0)); then say "verify                0 differences"; else say "verify                FAILED, see above"; fi
  say "took                  $(seconds_since "$STARTED_MS") s"
}

next_commands() {
  cat >&2 <<EOF

The projectors go on running (log: .stack/log/run.log). Five commands to try next:

  set -a; . .stack/env; set +a; PATH="\$PWD/target/debug:\$PATH"
  fleetlog unit show swerk1.uNordFTS%2F0001
  fleetlog history swerk1.uNordFTS%2F0001 --limit 10
  fleetlog dlq list
  fleetlog events --follow
  fleetlog status --watch 2

make stop ends it all, data stay; make clean removes them.
EOF
}

# --- the demo ------------------------------------------------------------------------------------------------------

# Each run simulates another fleet's worth of tasks: the same seed would only send the same events again.
next_seed() {
  local seed
  seed=$(($(remembered "$STACK/demo" seed || true) + 1))
  remember "$STACK/demo" seed "$seed"
  echo "$seed"
}

simulate_with_live_status() {
  local seed simulator code=0
  seed="$(next_seed)"
  say "   fleetlog simulate --units $UNITS --rate $RATE --events $EVENTS --seed $seed"
  fleetlog simulate --units "$UNITS" --rate "$RATE" --events "$EVENTS" --seed "$seed" 2>"$LOGS/simulate.log" &
  simulator=$!
  trap 'kill -INT $simulator 2>/dev/null || true' INT TERM
  while kill -0 "$simulator" 2>/dev/null; do
    fleetlog status >&2
    for _ in $(seq $((STATUS_EVERY_S * 10))); do
      kill -0 "$simulator" 2>/dev/null || break
      sleep 0.1
    done
  done
  wait "$simulator" || code=$?
  trap - INT TERM
  ((code == 0)) || { cat "$LOGS/simulate.log" >&2; die "fleetlog simulate failed with exit code $code"; }
}

demo() {
  local verify_code=0
  STARTED_MS="$(now_ms)"
  step "servers"
  scripts/prerequisites.sh build
  scripts/stack.sh up
  # It speaks to the stack only; fleetlog refuses variables that are none of its settings.
  unset FLEETLOG_STACK
  load_env
  step "build (the first one takes some minutes)"
  cargo build --locked -p fleetlog-cli
  BINARY="$(cargo_target)/debug/fleetlog"
  step "topics, schemas, tables"
  fleetlog topics apply
  fleetlog schemas publish
  fleetlog migrate
  step "projectors"
  start_run
  step "a recording of 24 vehicles, as fast as it goes"
  fleetlog import vda5050 "$RECORDING" --speed max
  fleetlog status --wait "$CATCH_UP_S"
  step "a simulated fleet, with live status"
  http_get /metrics >"$LOGS/metrics-before"
  simulate_with_live_status
  step "catching up"
  fleetlog status --wait "$CATCH_UP_S"
  http_get /metrics >"$LOGS/metrics-after"
  step "the proof: the log is read again and compared with both stores"
  fleetlog verify || verify_code=$?
  summary "$verify_code"
  next_commands
  return "$verify_code"
}

# Where cargo puts what it builds, whatever the user's settings are.
cargo_target() {
  cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

case "${1-}" in
  "") make_folders && demo ;;
  stop) stop_run ;;
  *)
    say "usage: scripts/demo.sh [stop]"
    exit 2
    ;;
esac
