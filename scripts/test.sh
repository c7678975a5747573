#!/usr/bin/env bash
# `make test`: every check and test there is, on the local stack; prints what each stage took.
#
# The last line is `N passed, N failed`, summed over all test binaries; the exit code says the same. The stack is left
# running for the next time, unless CI=true.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source=stack/common.sh
source scripts/stack/common.sh

make_folders
# What is built once and thrown away is built faster without what makes the next build fast.
[[ ${CI-} != true ]] || export CARGO_INCREMENTAL=0
results="$LOGS/test-results.log"
: >"$results"
failed_stages=()
stage_times=()
started_ms="$(now_ms)"

# Runs one stage; a failing one doesn't keep the later ones from running (`required` ones end the run).
stage() { # TITLE COMMAND...
  local title="$1" stage_started_ms code
  shift
  say ""
  say "== $title"
  stage_started_ms="$(now_ms)"
  "$@"
  code=$?
  stage_times+=("$(printf '%7s s  %s' "$(seconds_since "$stage_started_ms")" "$title")")
  ((code == 0)) || failed_stages+=("$title")
  return "$code"
}

required() {
  stage "$@" || summary
}

# Output goes to the screen and, for the sum at the end, to a file.
cargo_test() {
  cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee -a "$results"
}

# Names of the test binaries outside src/ other than the contract tests, as --test options; without those that need a
# feature that the product has not (they have targets of their own in the Makefile).
integration_tests() {
  cargo metadata --format-version 1 --no-deps --locked 2>/dev/null | python3 -c '
import json, sys
names = {target["name"] for package in json.load(sys.stdin)["packages"] for target in package["targets"]
         if target["kind"] == ["test"] and not target.get("required-features")}
print("\n".join("--test\n" + name for name in sorted(names - {"contract"})))'
}

# With the stack's addresses in the environment; unit tests run without, since some are about the environment.
run_integration_tests() {
  local options
  load_env
  # Servers that tests start of their own keep their data where the stack keeps its.
  if is_in_memory; then
    export TMPDIR="$(data_home)/tmp"
    mkdir -p "$TMPDIR"
    chmod 755 "$TMPDIR"
  fi
  mapfile -t options < <(integration_tests)
  # More than there are processors: these tests wait for servers most of their time.
  cargo_test "${options[@]}" -- --test-threads 3
}

# Adds up the `test result:` lines; a test binary that died before its own counts as one failed.
count() { # WORD
  sed -n "s/^test result: .* \([0-9]*\) $1;.*/\1/p" "$results" | awk '{ sum += $1 } END { print sum + 0 }'
}

crashed() {
  local started ended
  started="$(grep -cE '^ +(Running (unittests )?[^ ]+|Doc-tests )' "$results")"
  ended="$(grep -c '^test result:' "$results")"
  echo $((started > ended ? started - ended : 0))
}

summary() {
  local passed failed line
  if [[ ${CI-} == true ]]; then
    if is_in_memory; then scripts/stack.sh wipe; else scripts/stack.sh down; fi
  else
    say ""
    say "The stack goes on running for the next time; \`make stop\` stops it."
  fi
  passed="$(count passed)"
  failed=$(($(count failed) + $(crashed)))
  echo ""
  for line in "${stage_times[@]}"; do echo "$line"; done
  printf '%7s s  in all\n' "$(seconds_since "$started_ms")"
  ((${#failed_stages[@]} == 0)) || printf 'failed: %s\n' "${failed_stages[@]}"
  # A stage that failed without a failing test (a lint, a build) must not look like a success.
  ((failed > 0 || ${#failed_stages[@]} == 0)) || failed="${#failed_stages[@]}"
  echo "$passed passed, $failed failed"
  ((failed == 0 && passed > 0)) && exit 0
  exit 1
}

required "prerequisites" scripts/prerequisites.sh build tests
required "stack" scripts/stack.sh up --with registry,pglite,python --in-memory
required "binary with faults in it" scripts/build_fault_injection.sh
required "build" cargo build --workspace --all-targets --locked
stage "format" cargo fmt --all --check
stage "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
stage "unit tests" cargo_test --lib --bins --examples
stage "doc tests" cargo_test --doc
stage "contract tests" cargo_test --test contract
# Gigabytes of what was just built lie in memory; written out in the midst of the tests they would hold up every server's
# own writes for half a minute.
stage "writing out what was built" sync
stage "integration tests" run_integration_tests
summary
