#!/usr/bin/env bash
# The memory of `fleetlog run`, all projections in one process: backlogs of 1 M and 5 M events, 100,000 units, events of
# 1 MB, stores that hang for a minute. Prints one table; exit code 1 if a bound is broken.
#
# Growth is that of one process: its peak when it has taken the first of 5 million events, and its peak at the end. Two runs
# are no measure of it: while a short backlog is taken not everything is ever full at once.
# usage: bench/bounds.sh [CASE ...]      (backlogs units large hang; all of them take about 15 minutes)
# See also bench/common.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=common.sh
source bench/common.sh

LIMIT_KB=488281 # 500 MB in KiB, the unit of /proc
GROWTH_PERCENT_MAX=5
SMALL="${FLEETLOG_TEST_BOUNDS_EVENTS:-1000000}"
HANG_S=60
unset FLEETLOG_TEST_BOUNDS_EVENTS

begin_bench bounds
WORK="$(mktemp -d)"
REDIS_PORT="$(free_port)"
ROWS=() STOPPED=() PEAKS="" BROKEN=0 DATABASE="" RUN="" REDIS=""

# A Redis of its own, to be emptied and stopped at will, without a file.
"${FLEETLOG_STACK_REDIS_SERVER:-redis-server}" --port "$REDIS_PORT" --bind 127.0.0.1 --save "" --appendonly no \
  --dir "$WORK" >"$WORK/redis.log" 2>&1 &
REDIS=$!
export FLEETLOG_REDIS__URL="redis://127.0.0.1:$REDIS_PORT/0" FLEETLOG_LOG__FILTER="${FLEETLOG_LOG__FILTER:-error}"
export FLEETLOG_RUN__INSTANCE="$NAME"

finish() {
  ((${#STOPPED[@]} == 0)) || kill -CONT "${STOPPED[@]}" 2>/dev/null || true
  [[ -z $RUN ]] || kill -KILL "$RUN" 2>/dev/null || true
  kill "$REDIS" 2>/dev/null || true
  drop_database || true
  rm -rf "$WORK"
}
trap finish EXIT

drop_database() {
  [[ -n $DATABASE ]] || return 0
  "$PSQL" -qX "$STACK_DATABASE" -c "DROP DATABASE IF EXISTS $DATABASE WITH (FORCE)" 2>/dev/null
  DATABASE=""
}

redis_ask() { # COMMAND
  local answer
  exec 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT"
  printf '%s\r\n' "$1" >&3
  IFS= read -r -t 60 answer <&3
  exec 3>&-
  echo "${answer%$'\r'}"
}

topics() { # LOG
  export FLEETLOG_KAFKA__TOPIC_PREFIX="$NAME-$1-"
  "$BINARY" topics apply >/dev/null 2>&1
}

simulate() { # EVENTS UNITS SEED
  echo "producing $1 events of $2 units" >&2
  "$BINARY" simulate --units "$2" --rate max --events "$1" --seed "$3" >&2
}

kb() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$RUN/status" 2>/dev/null || true; }

# Every store empty: all of the log is a backlog again.
begin_catch_up() {
  drop_database
  DATABASE="${NAME}_$RANDOM"
  "$PSQL" -qX "$STACK_DATABASE" -c "CREATE DATABASE $DATABASE"
  export FLEETLOG_POSTGRES__URL="${STACK_DATABASE%/*}/$DATABASE"
  "$BINARY" migrate >/dev/null
  redis_ask FLUSHALL >/dev/null
  "$BINARY" run --once --format json >"$WORK/run.json" 2>"$WORK/run.log" &
  RUN=$!
}

# Waits for its end and makes a row of it. The kernel keeps the peak (VmHWM); the samples show the way there: what the SQL
# projections have taken, and the peak so far.
end_catch_up() { # CASE
  local high peak=0 samples=0
  : >"$WORK/way"
  while kill -0 "$RUN" 2>/dev/null; do
    high="$(kb VmHWM)"
    peak="${high:-$peak}"
    ((samples++ % 10)) || echo "$(taken_by_sql) $peak" >>"$WORK/way"
    sleep 0.05
  done
  wait "$RUN" || { echo "error: the run failed:" >&2; tail -n 20 "$WORK/run.log" >&2; exit 4; }
  RUN=""
  row "$1" "$peak"
}

taken_by_sql() {
  "$PSQL" -qAtX "$FLEETLOG_POSTGRES__URL" -c "SELECT coalesce(sum(main), 0) FROM fleetlog_progress" 2>/dev/null || echo 0
}

# From the peak when a part of everything had been taken to the peak at the end, in percent.
growth_since() { # PART
  python3 - "$1" "$WORK/way" "$PEAKS" <<'PY'
import sys
way = [[int(part) for part in line.split()] for line in open(sys.argv[2])]
part = next(peak for taken, peak in way if taken >= way[-1][0] * float(sys.argv[1]))
print(f"{100 * (int(sys.argv[3]) / part - 1):+.1f}")
PY
}

row() { # CASE PEAK_KB
  local verdict=kept figures
  (($2 <= LIMIT_KB)) || verdict=BROKEN BROKEN=1
  PEAKS="$2"
  figures="$(python3 - "$WORK/run.json" <<'PY'
import json, sys
rows = json.load(open(sys.argv[1]))
ended = all(row["end"] == "CaughtUp" for row in rows)
print(f"{max(row['seconds'] for row in rows):.0f} | {sum(row['events'] for row in rows)}" if ended else "failed | failed")
PY
)"
  ROWS+=("| $1 | $(($2 * 1024 / 1000000)) | $figures | $verdict |")
  echo "${ROWS[-1]}" >&2
}

backlogs() {
  topics backlog
  simulate "$SMALL" 10000 7
  begin_catch_up && end_catch_up "backlog of $SMALL events, 10,000 units"
  simulate $((4 * SMALL)) 10000 8
  begin_catch_up && end_catch_up "backlog of $((5 * SMALL)) events, 10,000 units"
  GROWTH="$(growth_since 0.2)"
  (($(python3 -c "print(int($GROWTH <= $GROWTH_PERCENT_MAX))"))) || BROKEN=1
}

units() {
  topics units
  simulate "$SMALL" 100000 7
  begin_catch_up && end_catch_up "backlog of $SMALL events, 100,000 units"
}

# Random texts, which hardly compress: a megabyte on the wire, in the batch and in the row.
large() {
  topics large
  echo "producing 2000 events of 1 MB" >&2
  python3 - <<'PY' | "$BINARY" emit robot.ActionRequested --json - >/dev/null
import json, os
for n in range(2000):
    meta = {"site_uid": "504", "unit_uid": f"{n % 500}"}
    print(json.dumps({"meta": meta, "action_id": f"a{n}", "action_type": "map", "parameters": {"map": os.urandom(495_000).hex()}}))
PY
  begin_catch_up && end_catch_up "2,000 events of 1 MB"
}

# Redis and every process of PostgreSQL stop in the middle: nobody hangs up, nobody answers.
hang() {
  topics backlog-hang
  simulate "$SMALL" 10000 7
  begin_catch_up
  until [[ $(redis_ask DBSIZE) != :0 ]]; do sleep 0.2; done
  local postmaster before after
  postmaster="$(pid_of postgres || true)"
  mapfile -t STOPPED < <("$PSQL" -qAtX "$FLEETLOG_POSTGRES__URL" \
    -c "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
  STOPPED+=("$REDIS")
  [[ -z $postmaster ]] || STOPPED+=("$postmaster")
  kill -STOP "${STOPPED[@]}"
  echo "Redis and PostgreSQL stopped for $HANG_S s" >&2
  sleep $((HANG_S / 2))
  before="$(kb VmRSS)"
  sleep $((HANG_S / 2))
  after="$(kb VmRSS)"
  kill -CONT "${STOPPED[@]}"
  STOPPED=()
  echo "RSS after half of it: $((before / 1000)) MB, at its end: $((after / 1000)) MB" >&2
  end_catch_up "stores that hang for $HANG_S s, backlog of $SMALL events"
}

((${#@} > 0)) || set -- backlogs units large hang
for case in "$@"; do
  case "$case" in
    backlogs | units | large | hang) "$case" ;;
    *) echo "unknown case $case: backlogs units large hang" >&2; exit 2 ;;
  esac
done

echo
echo "| case | peak RSS (MB) | seconds | events taken by all projections | at most 500 MB |"
echo "|---|---:|---:|---:|---|"
printf '%s\n' "${ROWS[@]}"
if [[ -n ${GROWTH-} ]]; then
  echo
  echo "Growth of the process from $SMALL to $((5 * SMALL)) events of one backlog: $GROWTH % (at most $GROWTH_PERCENT_MAX %)."
fi
((BROKEN == 0)) || { echo "a bound is broken" >&2; exit 1; }
