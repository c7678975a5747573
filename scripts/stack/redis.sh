# shellcheck shell=bash
# Redis as fleetlog needs it: append-only file, fsync every second, no eviction. Sourced by stack.sh.

REDIS_HOME="$STACK/redis"

redis_data() { echo "$(data_home)/redis"; }

redis_start() {
  local port
  if is_up redis; then
    say "redis: running on 127.0.0.1:$(remembered "$PORTS_FILE" redis)"
    return 0
  fi
  port="$(port_for redis)" || exit 1
  mkdir -p "$REDIS_HOME" "$(redis_data)"
  # auto-aof-rewrite-min-size: from 64 MB on (the default) a fleet of 10,000 units, each written once a second, has the file
  # rewritten every six seconds, and each time a core is taken for a second.
  # set-proc-title: Redis would write over the command line by which the stack knows its own process.
  cat >"$REDIS_HOME/redis.conf" <<EOF
bind 127.0.0.1
port $port
dir $(redis_data)
daemonize no
set-proc-title no
appendonly yes
appendfsync everysec
auto-aof-rewrite-min-size 1gb
save ""
maxmemory-policy noeviction
EOF
  say "redis: starting"
  REDIS_STARTED_MS="$(now_ms)"
  launch redis redis-server "$REDIS_HOME/redis.conf"
}

# PING answers LOADING until the append-only file is read. Spoken by hand: redis-cli need not be there.
redis_answers() ( # PORT
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'PING\r\n' >&3
  IFS= read -r -t 2 answer <&3
  [[ $answer == +PONG* ]]
)

redis_await() {
  local port
  port="$(remembered "$PORTS_FILE" redis)"
  [[ -n ${REDIS_STARTED_MS-} ]] && await redis 180 "$REDIS_STARTED_MS" "127.0.0.1:$port" redis_answers "$port"
  remember "$ENV_FILE" FLEETLOG_REDIS__URL "redis://127.0.0.1:$port/0"
  remember "$ENV_FILE" FLEETLOG_STACK_REDIS_SERVER "$(command -v redis-server)"
}

redis_stop() { stop_server redis TERM; }
redis_wipe() { rm -rf "$(redis_data)"; }
