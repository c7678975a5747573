# shellcheck shell=bash
# What all parts of the stack share: places, ports, processes, the env file. Sourced, never run.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck disable=SC2034 # used by the parts
SCRIPTS="$ROOT/scripts"
STACK="$ROOT/.stack"
ENV_FILE="$STACK/env"
PORTS_FILE="$STACK/ports"
LOGS="$STACK/log"
PIDS="$STACK/pid"

say() { printf '%s\n' "$*" >&2; }
die() {
  say "stack: $*"
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Milliseconds since some fixed moment, for "ready in 4.1 s".
now_ms() { local t="${EPOCHREALTIME/,/.}"; echo "${t%.*}$(printf '%.3s' "${t#*.}")"; }
seconds_since() { local ms=$(($(now_ms) - $1)); printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100)); }

# The postgres user must be able to walk through; only the env file and the data folders are private.
make_folders() {
  mkdir -p "$STACK" "$LOGS" "$PIDS"
  chmod 755 "$STACK"
}

# --- data --------------------------------------------------------------------------------------------------------

# Below this, servers keep their data: .stack/, or a folder in memory.
data_home() {
  local home
  home="$(remembered "$PORTS_FILE" data-home)"
  echo "${home:-$STACK}"
}

# Tests make tens of thousands of partitions and dozens of databases, and wait for every one of their files: on a busy disk
# for seconds at a time. What has data on disk keeps them there; so does a machine that has not enough memory to spare.
choose_data_in_memory() {
  local home free_kb available_kb
  [[ -z $(remembered "$PORTS_FILE" data-home) && ! -d $STACK/kafka/data && ! -d $STACK/redis ]] || return 0
  [[ -d /dev/shm && -w /dev/shm && -r /proc/meminfo ]] || return 0
  free_kb="$(df -Pk /dev/shm | awk 'NR == 2 { print $4 }')"
  available_kb="$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)"
  ((free_kb > 4 * 1024 * 1024 && available_kb > 12 * 1024 * 1024)) || return 0
  home="/dev/shm/fleetlog-$(printf '%s' "$STACK" | cksum | cut -d ' ' -f 1)"
  mkdir -p "$home"
  chmod 755 "$home"
  remember "$PORTS_FILE" data-home "$home"
  say "stack: the servers' data go to $home: in memory, gone when the machine restarts"
}

is_in_memory() { [[ $(data_home) != "$STACK" ]]; }

# --- ports ---------------------------------------------------------------------------------------------------------

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

remembered() { # FILE KEY
  [[ -f $1 ]] || return 0
  sed -n "s/^$2=//p" "$1" | tail -n 1
}

remember() { # FILE KEY VALUE
  local rest=""
  [[ -f $1 ]] && rest="$(grep -v "^$2=" "$1" || true)"
  { [[ -n $rest ]] && printf '%s\n' "$rest"; printf '%s=%s\n' "$2" "$3"; } >"$1.new"
  mv "$1.new" "$1"
}

forget() { # FILE KEY
  [[ -f $1 ]] || return 0
  { grep -v "^$2=" "$1" || true; } >"$1.new"
  mv "$1.new" "$1"
}

# A port below the range from which the kernel takes ports for outgoing connections.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    grep -q "=$port\$" "$PORTS_FILE" 2>/dev/null && continue
    port_answers "$port" || { echo "$port"; return 0; }
  done
  die "no free port found between 20000 and 32000"
}

# The port a server had last time, so that addresses stay; a new one if somebody else listens there now.
# Call only while the server itself is down.
port_for() { # NAME
  local port
  port="$(remembered "$PORTS_FILE" "$1")"
  if [[ -n $port ]] && port_answers "$port"; then
    say "$1: port $port is taken by another process, choosing a new one"
    port=""
  fi
  if [[ -z $port ]]; then
    port="$(free_port)" || return 1
    remember "$PORTS_FILE" "$1" "$port"
  fi
  echo "$port"
}

# --- processes -----------------------------------------------------------------------------------------------------

pid_of() { cat "$PIDS/$1" 2>/dev/null; }

# A pid may have been given to somebody else since: the process is ours only if its command line names our folder.
# PostgreSQL's folder may lie elsewhere.
is_up() { # NAME
  local pid
  pid="$(pid_of "$1")" && [[ -n $pid ]] || return 1
  ps -ww -o args= -p "$pid" 2>/dev/null | grep -qF -e "$STACK/" -e "$(postgres_home)/"
}

# Starts a server of its own session, so that it outlives this script and a Ctrl-C; its output goes to its log.
launch() { # NAME COMMAND...
  local name="$1"
  shift
  [[ -f $LOGS/$name.log ]] && mv "$LOGS/$name.log" "$LOGS/$name.log.1"
  if have setsid; then set -- setsid "$@"; else set -- nohup "$@"; fi
  "$@" >"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
  echo $! >"$PIDS/$name"
}

# Waits until the check command holds; a server that dies meanwhile is an error at once.
await() { # NAME TIMEOUT_S STARTED_MS WHERE CHECK...
  local name="$1" timeout_s="$2" started_ms="$3" where="$4"
  shift 4
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$(pid_of "$name")" 2>/dev/null; then
      tail -n 20 "$LOGS/$name.log" >&2
      die "$name: ended while starting; the end of its log ($LOGS/$name.log) is above"
    fi
    if (($(now_ms) - started_ms > timeout_s * 1000)); then
      tail -n 20 "$LOGS/$name.log" >&2
      die "$name: not ready after $timeout_s s; the end of its log ($LOGS/$name.log) is above"
    fi
    sleep 0.1
  done
  say "$name: ready in $(seconds_since "$started_ms") s on $where"
}

stop_server() { # NAME SIGNAL
  local name="$1" signal="$2" pid
  if ! is_up "$name"; then
    rm -f "$PIDS/$name"
    return 0
  fi
  pid="$(pid_of "$name")"
  kill "-$signal" "$pid" 2>/dev/null
  for _ in $(seq 200); do
    is_up "$name" || break
    sleep 0.1
  done
  if is_up "$name"; then
    say "$name: did not stop within 20 s, killing process $pid"
    kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$PIDS/$name"
  say "$name: stopped"
}

# --- addresses -----------------------------------------------------------------------------------------------------

# A server whose address the user has set is the user's: it's neither started nor stopped here.
# (Our own address coming back through the environment of a parent script is not the user's.)
user_set() { # VARIABLE
  local value="${!1-}"
  [[ -n $value && $value != "$(remembered "$ENV_FILE" "$1")" ]]
}

# Exports what .stack/env says, unless the user has set it otherwise.
load_env() {
  local line name
  [[ -f $ENV_FILE ]] || return 0
  while IFS= read -r line; do
    name="${line%%=*}"
    [[ -n ${!name-} ]] || export "${name?}=${line#*=}"
  done <"$ENV_FILE"
}
