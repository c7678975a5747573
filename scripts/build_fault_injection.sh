#!/usr/bin/env bash
# Builds the binary with fail points and mutants (feature `fault-injection`) into target/fault-injection/, for the
# chaos tests. The ordinary binary is put back: what lies in target/debug is always the product.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/prerequisites.sh build
target="${CARGO_TARGET_DIR:-target}"
cargo build --workspace --locked --bin fleetlog --features fleetlog-cli/fault-injection
mkdir -p "$target/fault-injection"
cp "$target/debug/fleetlog" "$target/fault-injection/fleetlog.new"
mv "$target/fault-injection/fleetlog.new" "$target/fault-injection/fleetlog"
cargo build --workspace --locked --bin fleetlog
