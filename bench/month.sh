#!/usr/bin/env bash
# A simulated month: TASKS tasks of 2,000 units over 31 days through Kafka into ledger, aggregates and views, compared with
# what was planned, and the times of typical queries. usage: bench/month.sh [TASKS [SEED]]     (1000000, 1)
# FLEETLOG_BENCH_DATABASE_URL chooses a PostgreSQL or TimescaleDB in which databases may be made; see also bench/common.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=common.sh
source bench/common.sh

TASKS="${1:-1000000}"
SEED="${2:-1}"
SERVER="${FLEETLOG_BENCH_DATABASE_URL:-}"
unset FLEETLOG_BENCH_DATABASE_URL

begin_bench month --with python
SERVER="${SERVER:-$STACK_DATABASE}"
PYTHON="$FLEETLOG_TEST_PYTHON"
unset FLEETLOG_TEST_PYTHON
"$PSQL" -qX "$SERVER" -c "CREATE DATABASE $NAME"
trap '"$PSQL" -qX "$SERVER" -c "DROP DATABASE IF EXISTS $NAME WITH (FORCE)"' EXIT
export FLEETLOG_POSTGRES__URL="${SERVER%/*}/$NAME"
export FLEETLOG_KAFKA__TOPIC_PREFIX="$NAME-" FLEETLOG_RUN__INSTANCE="$NAME" FLEETLOG_LOG__FILTER="${FLEETLOG_LOG__FILTER:-error}"
export FLEETLOG_RUN__PROJECTIONS="task-ledger,event-history"

"$BINARY" topics apply >/dev/null
"$BINARY" migrate >/dev/null
"$BINARY" schemas publish >/dev/null
echo "planning and sending $TASKS tasks" >&2
"$PYTHON" tests/month/month.py send "$FLEETLOG_KAFKA__BROKERS" "$NAME-" "$FLEETLOG_POSTGRES__URL" "$TASKS" "$SEED"
"$BINARY" run --once
"$PYTHON" tests/month/month.py compare "$FLEETLOG_POSTGRES__URL"
