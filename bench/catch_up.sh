#!/usr/bin/env bash
# Catch-up: N simulated events onto a fresh set of topics, then every projection from the beginning, all at once.
# Prints one Markdown table. usage: bench/catch_up.sh [EVENTS [UNITS]]     (2000000, 10000)
# See also bench/common.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=common.sh
source bench/common.sh

EVENTS="${1:-2000000}"
UNITS="${2:-10000}"

begin_bench bench
"$PSQL" -qX "$STACK_DATABASE" -c "CREATE DATABASE $NAME"
export FLEETLOG_POSTGRES__URL="${STACK_DATABASE%/*}/$NAME"
export FLEETLOG_KAFKA__TOPIC_PREFIX="$NAME-" FLEETLOG_REDIS__KEY_PREFIX="$NAME:" FLEETLOG_LOG__FILTER=warn

"$BINARY" topics apply >/dev/null
"$BINARY" migrate >/dev/null
"$BINARY" simulate --units "$UNITS" --rate max --events "$EVENTS" --seed 7 | tee /dev/stderr | tail -n 1 >"/tmp/$NAME.simulate"
"$BINARY" run --once --format json >"/tmp/$NAME.json" &
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
echo "Produced: $(cat "/tmp/$NAME.simulate")"
echo
echo "| projection | events | seconds | events/s | CPU s | batches |"
echo "|---|---:|---:|---:|---:|---:|"
python3 - "/tmp/$NAME.json" <<'PY'
import json, sys
for row in json.load(open(sys.argv[1])):
    print(f"| {row['projection']} | {row['events']} | {row['seconds']:.1f} | {row['events_per_s']:.0f} | {row['cpu_seconds']:.1f} | {row['batches']} |")
PY
echo
echo "Memory of the process (RSS): $((${first:-0} / 1024)) MB at its start, $((${last:-0} / 1024)) MB at its end, $((${peak:-0} / 1024)) MB at most."
echo
"$BINARY" verify | tail -n 1
unset FLEETLOG_POSTGRES__URL
"$PSQL" -qX "$STACK_DATABASE" -c "DROP DATABASE $NAME"
rm -f "/tmp/$NAME.simulate" "/tmp/$NAME.json"
