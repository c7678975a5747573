# What the scripts of bench/ begin with; sourced, from the root of the project.
#
# FLEETLOG_BENCH_BINARY chooses the binary (target/release/fleetlog, which is built if it is missing). Sets BINARY, NAME (of this
# run, for topics, keys and databases), PSQL and STACK_DATABASE, and the stack's addresses in the environment.

# shellcheck source=../scripts/stack/common.sh
source scripts/stack/common.sh

begin_bench() { # LABEL STACK-OPTIONS...
  local label="$1"
  shift
  BINARY="${FLEETLOG_BENCH_BINARY:-target/release/fleetlog}"
  # They are no settings of fleetlog, which would refuse them.
  unset FLEETLOG_BENCH_BINARY FLEETLOG_STACK
  scripts/prerequisites.sh build
  scripts/stack.sh up "$@"
  if [[ ! -x $BINARY ]]; then cargo build --locked --release -p fleetlog-cli; fi
  load_env
  NAME="$label$(date +%s)"
  PSQL="${FLEETLOG_STACK_POSTGRES_BIN:+$FLEETLOG_STACK_POSTGRES_BIN/}psql"
  STACK_DATABASE="$FLEETLOG_POSTGRES__URL"
}
