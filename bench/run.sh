#!/usr/bin/env bash
# fleetlog beside bare clients: builds both in the release profile, starts the local stack, measures, and writes
# bench/RESULTS.md and bench/results.json. usage: bench/run.sh [OPTION...]     (--help tells them; make bench, make bench-full)
# See also bench/common.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=common.sh
source bench/common.sh

begin_bench bench
cargo build --locked --release -p fleetlog-bench
FLEETLOG_BENCH_BINARY="$PWD/$BINARY" FLEETLOG_BENCH_PSQL="$PSQL" target/release/fleetlog-bench "$@"
