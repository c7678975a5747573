#!/usr/bin/env bash
# The local stack: real servers in .stack/, on free ports of 127.0.0.1, without containers and without root.
# `scripts/stack.sh help` says what it can do.
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=stack/common.sh
source "$here/stack/common.sh"
for part in kafka redis postgres registry pglite python containers; do
  # shellcheck source=/dev/null
  source "$here/stack/$part.sh"
done

ALL=(redis postgres kafka registry pglite)

usage() {
  cat <<'EOF'
usage: scripts/stack.sh COMMAND

  up [--with LIST]              start what is not running: Kafka, Redis, PostgreSQL, and what LIST names:
                                registry, pglite, python
     [--in-memory]              data that are not there yet go to a folder in memory, if there is enough of it: for tests
  down                          stop the servers this checkout started; data stay
  status                        one line per server
  env                           the addresses as NAME=VALUE lines (also in .stack/env)
  logs [SERVER]                 where the logs are, or the end of one
  wipe                          down, and remove the servers' data; what was installed stays
  clean                         down, and remove .stack/ with all data

A server whose address is set by the user (FLEETLOG_KAFKA__BROKERS, FLEETLOG_REDIS__URL, FLEETLOG_POSTGRES__URL,
FLEETLOG_TEST_REGISTRY_URL, FLEETLOG_TEST_PGLITE_URL) is left alone. FLEETLOG_STACK=containers takes Kafka, Redis,
TimescaleDB and the registry from compose/compose.yaml; FLEETLOG_STACK=local never does.
EOF
}

variable_of() { # SERVER
  case "$1" in
    kafka) echo FLEETLOG_KAFKA__BROKERS ;;
    redis) echo FLEETLOG_REDIS__URL ;;
    postgres) echo FLEETLOG_POSTGRES__URL ;;
    registry) echo FLEETLOG_TEST_REGISTRY_URL ;;
    pglite) echo FLEETLOG_TEST_PGLITE_URL ;;
    python) echo FLEETLOG_TEST_PYTHON ;;
  esac
}

# One `up` at a time: two would start two servers on one folder. Servers don't inherit descriptor 9.
lock() {
  make_folders
  exec 9>"$STACK/lock"
  have flock || return 0
  flock -n 9 && return 0
  say "stack: waiting for another scripts/stack.sh on this checkout"
  flock 9
}

up() {
  local with="" in_memory=false wanted=(redis postgres kafka) own=() server variable
  while (($# > 0)); do
    case "$1" in
      --with) with="${2-}"; shift 2 || die "--with needs a list: registry,pglite,python" ;;
      --with=*) with="${1#--with=}"; shift ;;
      --in-memory) in_memory=true; shift ;;
      *) die "unknown option $1; see scripts/stack.sh help" ;;
    esac
  done
  for server in ${with//,/ }; do
    case "$server" in
      registry | pglite | python) wanted+=("$server") ;;
      *) die "--with knows registry, pglite and python, not $server" ;;
    esac
  done
  lock
  touch "$ENV_FILE"
  chmod 600 "$ENV_FILE"
  for server in "${wanted[@]}"; do
    variable="$(variable_of "$server")"
    if user_set "$variable"; then
      say "$server: $variable is set by you, not starting one"
    else
      own+=("$server")
    fi
  done
  ((${#own[@]} > 0)) || return 0
  if use_containers; then
    containers_up "${own[@]}"
    return
  fi
  "$SCRIPTS/prerequisites.sh" "${own[@]}" || exit 1
  [[ $in_memory == true ]] && choose_data_in_memory
  for server in kafka registry pglite python; do
    [[ " ${own[*]} " == *" $server "* ]] && "${server}_install"
  done
  for server in "${own[@]}"; do "${server}_start"; done
  for server in "${own[@]}"; do "${server}_await"; done
}

down() {
  local server
  lock
  containers_down
  for server in "${ALL[@]}"; do "${server}_stop"; done
}

wipe() {
  local server
  down
  for server in redis postgres kafka; do "${server}_wipe"; done
  # With whatever tests left there.
  if is_in_memory; then rm -rf "$(data_home)"; fi
  forget "$PORTS_FILE" data-home
}

clean() {
  wipe
  containers_clean
  rm -rf "$STACK"
  say "stack: $STACK removed"
}

status() {
  local server variable up=0
  for server in "${ALL[@]}"; do
    variable="$(variable_of "$server")"
    if user_set "$variable"; then
      printf '%-9s yours    %s\n' "$server" "$variable"
    elif is_up "$server"; then
      printf '%-9s running  pid %-7s 127.0.0.1:%s\n' "$server" "$(pid_of "$server")" "$(remembered "$PORTS_FILE" "$server")"
      up=$((up + 1))
    else
      printf '%-9s stopped\n' "$server"
    fi
  done
  containers_status
  ((up > 0))
}

# The file's lines, with what the user has set in their place.
print_env() {
  local line name
  [[ -f $ENV_FILE ]] || die "there is no $ENV_FILE yet: run make stack"
  while IFS= read -r line; do
    name="${line%%=*}"
    printf '%s=%s\n' "$name" "${!name-${line#*=}}"
  done <"$ENV_FILE"
}

logs() {
  if (($# == 0)); then
    ls "$LOGS"/*.log 2>/dev/null
  else
    tail -n 50 "$LOGS/$1.log"
  fi
}

command="${1-help}"
(($# > 0)) && shift
case "$command" in
  up) up "$@" ;;
  down) down ;;
  wipe) wipe ;;
  clean) clean ;;
  status) status ;;
  env) print_env ;;
  logs) logs "$@" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
