#!/usr/bin/env bash
# Instructions an item of each pure part, counted by valgrind, beside bench/instructions.json; exit code 1 if one is more than
# 5 % above it. No server is needed. usage: bench/instructions.sh [--update] [--only TEXT]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/prerequisites.sh build instructions
exec cargo run --quiet --locked --release -p fleetlog-bench --bin fleetlog-instructions -- "$@"
