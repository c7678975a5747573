#!/usr/bin/env bash
# The chaos harness (docs/chaos.md):
#   scripts/chaos.sh seeds      seeds 1 to SEEDS (100), JOBS (1) at a time, going on where it stopped;
#                               SEED=7 [FAMILY=zombie] runs that one
#   scripts/chaos.sh mutants    each guarantee broken on purpose (MUTANT=a,b: only those), until a check notices
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=stack/common.sh
source scripts/stack/common.sh

scripts/stack.sh up --with python
[[ -n ${SKIP_BUILD-} ]] || scripts/build_fault_injection.sh
load_env

# One state file for each state of the code: what another code did says nothing about this one.
revision="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
git diff --quiet HEAD 2>/dev/null || revision="$revision-$(git diff HEAD | sha1sum | cut -c1-8)"
export FLEETLOG_CHAOS_STATE="${STATE:-$revision}"
export FLEETLOG_CHAOS_SEEDS="${SEEDS:-100}" FLEETLOG_CHAOS_SEED="${SEED-}" FLEETLOG_CHAOS_FAMILY="${FAMILY-}"
export FLEETLOG_CHAOS_MUTANT="${MUTANT-}" FLEETLOG_CHAOS_JOBS="${JOBS-}"

case "${1-seeds}" in
  seeds) name=seeds::many_seeds ;;
  mutants) name=mutants::every_mutant_is_caught ;;
  *) die "scripts/chaos.sh knows seeds and mutants, not $1" ;;
esac
exec cargo test --workspace --locked --test chaos -- --exact "$name" --ignored --nocapture
