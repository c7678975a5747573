#!/usr/bin/env bash
# `make fuzz INPUTS=1000000 [SEED=2] [TARGET=frames]`: every fuzz target with so many inputs; prints a line for each.
#
# Needs no servers. What fails is in target/fuzz/, with the command to run it again.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/prerequisites.sh build

export FLEETLOG_TEST_FUZZ_INPUTS="${INPUTS:-100000}"
export FLEETLOG_TEST_FUZZ_SEED="${SEED:-1}"

# Builds a test binary and prints its path. Without -p features are those of the other recipes, and nothing is built twice.
binary() { # CARGO-TEST-OPTIONS...
  cargo test --workspace --locked --no-run --message-format=json-render-diagnostics "$@" |
    python3 -c '
import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable") and built["profile"]["test"] and built["target"]["name"] == sys.argv[1]:
        print(built["executable"])' "$NAME"
}

code=0
run() { # NAME FILTER CARGO-TEST-OPTIONS...
  local NAME="$1" filter="$2" path
  shift 2
  path="$(binary "$@")"
  # One target after the other: rates mean something, and what is printed keeps its order.
  "$path" --nocapture --test-threads=1 ${filter:+"$filter"} 2>&1 | grep -E 'fuzz [a-z0-9-]+:|^target |^it is in|^again|panicked|^test result' || code=1
  ((PIPESTATUS[0] == 0)) || code=1
}

# Tests are named after their targets.
target="${TARGET-}" target="${target//-/_}"
run fuzz "$target" --test fuzz
run fleetlog "fuzz::$target" --bin fleetlog
run fleetlog_sink_redis "fuzz::$target" --lib
exit "$code"
