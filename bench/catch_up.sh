#!/usr/bin/env bash
# Catch-up: N simulated events onto a fresh set of topics, then every projection from the beginning, all at once.
# Prints one Markdown table. usage: bench/catch_up.sh [EVENTS [UNITS]]     (2000000, 10000)
# FLEETLOG_BENCH_BINARY chooses the binary (target/release/fleetlog, which is built if it is missing).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../scripts/stack/common.sh
source scripts/stack/common.sh

EVENTS="${1:-2000000}"
UNITS="${2:-10000}"
BINARY="${FLEETLOG_BENCH_BINARY:-target/release/fleetlog}"
unset FLEETLOG_BENCH_BINARY FLEETLOG_STACK

scripts/stack.sh up
if [[ ! -x $BINARY ]]; then cargo build --locked --release -p fleetlog-cli; fi
load_env
name="bench$(date +%s)"
psql="${FLEETLOG_STACK_POSTGRES_BIN:+$FLEETLOG_STACK_POSTGRES_BIN/}psql"
"$psql" -qX "$FLEETLOG_POSTGRES__URL" -c "CREATE DATABASE $name"
stack_database="$FLEETLOG_POSTGRES__URL"
export FLEETLOG_POSTGRES__URL="${FLEETLOG_POSTGRES__URL%/*}/$name"
export FLEETLOG_KAFKA__TOPIC_PREFIX="$name-" FLEETLOG_REDIS__KEY_PREFIX="$name:" FLEETLOG_LOG__FILTER=warn

"$BINARY" topics apply >/dev/null
"$BINARY" migrate >/dev/null
"$BINARY" simulate --units "$UNITS" --rate max --events "$EVENTS" --seed 7 | tee /dev/stderr | tail -n 1 >"/tmp/$name.simulate"
"$BINARY" run --once --format json >"/tmp/$name.json" &
run=$!
rss_kb() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$run/status" 2>/dev/null; }
sleep 0.05
first="$(rss_kb VmRSS || true)" last="" peak=""
while kill -0 "$run" 2>/dev/null; do
  now="$(rss_kb VmRSS || true)" high="$(rss_kb VmHWM || true)"
  last="${now:-$last}" peak="${high:-$peak}"
  sleep 0.05
done
wait "$run"

echo
echo "Produced: $(cat "/tmp/$name.simulate")"
echo
echo "| projection | events | seconds | events/s | CPU s | batches |"
echo "|---|---:|---:|---:|---:|---:|"
python3 - "/tmp/$name.json" <<'PY'
import json, sys
for row in json.load(open(sys.argv[1])):
    print(f"| {row['projection']} | {row['events']} | {row['seconds']:.1f} | {row['events_per_s']:.0f} | {row['cpu_seconds']:.1f} | {row['batches']} |")
PY
echo
echo "Memory of the process (RSS): $((${first:-0} / 1024)) MB at its start, $((${last:-0} / 1024)) MB at its end, $((${peak:-0} / 1024)) MB at most."
echo
"$BINARY" verify | tail -n 1
unset FLEETLOG_POSTGRES__URL
"$psql" -qX "$stack_database" -c "DROP DATABASE $name"
rm -f "/tmp/$name.simulate" "/tmp/$name.json"
