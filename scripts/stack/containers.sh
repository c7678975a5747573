# shellcheck shell=bash
# The same stack from compose/compose.yaml, where a container engine is up. Sourced by stack.sh.

COMPOSE_FILE="$ROOT/compose/compose.yaml"
COMPOSE_MARK="$STACK/containers"

engine_up() { have docker && docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

# Asked for, or the only way: no Java or Maven here, but an engine.
use_containers() {
  case "${FLEETLOG_STACK-}" in
    containers)
      engine_up || die "FLEETLOG_STACK=containers, but \`docker info\` or \`docker compose version\` fails"
      ;;
    local) return 1 ;;
    "") { have java && have mvn; } && return 1; engine_up ;;
    *) die "FLEETLOG_STACK is \`$FLEETLOG_STACK\`: it can be containers or local" ;;
  esac
}

# One project per checkout, so that two of them don't share containers.
compose() {
  docker compose -p "fleetlog-$(printf '%s' "$STACK" | cksum | cut -d ' ' -f 1)" -f "$COMPOSE_FILE" "$@"
}

# Ports stay the same from one `up` to the next; compose itself leaves running containers as they are.
containers_port() { # NAME
  local port
  port="$(remembered "$PORTS_FILE" "containers-$1")"
  if [[ -z $port ]]; then
    port="$(free_port)" || return 1
    remember "$PORTS_FILE" "containers-$1" "$port"
  fi
  echo "$port"
}

containers_ports() {
  FLEETLOG_COMPOSE_KAFKA_PORT="$(containers_port kafka)" || exit 1
  FLEETLOG_COMPOSE_REDIS_PORT="$(containers_port redis)" || exit 1
  FLEETLOG_COMPOSE_POSTGRES_PORT="$(containers_port postgres)" || exit 1
  FLEETLOG_COMPOSE_REGISTRY_PORT="$(containers_port registry)" || exit 1
  export FLEETLOG_COMPOSE_KAFKA_PORT FLEETLOG_COMPOSE_REDIS_PORT FLEETLOG_COMPOSE_POSTGRES_PORT \
    FLEETLOG_COMPOSE_REGISTRY_PORT
}

containers_up() { # SERVER...
  local server services=() started_ms postgres
  containers_ports
  for server in "$@"; do
    # pglite exists so that Timescale can be tested where no container runs; it's the same program in both cases.
    case "$server" in
      pglite) pglite_install && pglite_start ;;
      python) python_install ;;
      *) services+=("$server") ;;
    esac
  done
  say "containers: starting ${services[*]}"
  started_ms="$(now_ms)"
  ((${#services[@]} == 0)) || compose up -d --wait "${services[@]}" >&2 || die "containers: \`docker compose up\` failed, see above"
  touch "$COMPOSE_MARK"
  say "containers: ready in $(seconds_since "$started_ms") s"
  for server in "$@"; do
    case "$server" in
      kafka)
        remember "$ENV_FILE" FLEETLOG_KAFKA__BROKERS "127.0.0.1:$FLEETLOG_COMPOSE_KAFKA_PORT"
        remember "$ENV_FILE" FLEETLOG_KAFKA__REPLICATION 1
        ;;
      redis) remember "$ENV_FILE" FLEETLOG_REDIS__URL "redis://127.0.0.1:$FLEETLOG_COMPOSE_REDIS_PORT/0" ;;
      postgres)
        postgres="postgres://fleetlog:fleetlog@127.0.0.1:$FLEETLOG_COMPOSE_POSTGRES_PORT/fleetlog"
        remember "$ENV_FILE" FLEETLOG_POSTGRES__URL "$postgres"
        remember "$ENV_FILE" FLEETLOG_TEST_TIMESCALE_URL "$postgres"
        ;;
      registry)
        remember "$ENV_FILE" FLEETLOG_TEST_REGISTRY_URL \
          "http://127.0.0.1:$FLEETLOG_COMPOSE_REGISTRY_PORT/apis/ccompat/v7"
        ;;
      pglite | python) "${server}_await" ;;
    esac
  done
}

containers_down() {
  [[ -f $COMPOSE_MARK ]] || return 0
  compose stop >&2 && say "containers: stopped"
}

containers_clean() {
  [[ -f $COMPOSE_MARK ]] || return 0
  compose down --volumes >&2 && say "containers: removed with their volumes"
}

containers_status() {
  [[ -f $COMPOSE_MARK ]] || return 0
  compose ps
}
