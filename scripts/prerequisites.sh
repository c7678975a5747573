#!/usr/bin/env bash
# Checks that what the named parts need is there, installs what a Debian package brings, names the rest.
# usage: scripts/prerequisites.sh [build] [tests] [kafka] [redis] [postgres] [registry] [pglite] [python]   (none: all)
#        scripts/prerequisites.sh instructions                       (what only `make instructions` needs; not part of all)
#
# Only missing things are installed, by apt-get, as root or through sudo; FLEETLOG_STACK_NO_INSTALL=1 forbids it.
set -uo pipefail

missing_packages=()
missing_other=()

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

package() { # PACKAGE CHECK...
  local name="$1"
  shift
  "$@" >/dev/null 2>&1 || missing_packages+=("$name")
}

# A major version of a tool that answers like `openjdk version "17.0.15"` or `v20.20.2`.
major_at_least() { # MINIMUM COMMAND...
  local minimum="$1" major
  shift
  major="$("$@" 2>&1 | head -n 1 | sed -n 's/[^0-9]*\([0-9][0-9]*\).*/\1/p')"
  [[ -n $major ]] && ((major >= minimum))
}

has_postgres() { have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

has_curl_headers() { compgen -G '/usr/include/*/curl/curl.h' >/dev/null || [[ -f /usr/include/curl/curl.h ]]; }

check_build() {
  package make have make
  package g++ have g++
  package cmake have cmake
  package pkg-config have pkg-config
  # OpenSSL for Kafka, Redis and PostgreSQL over TLS. Asked of the compiler where pkg-config isn't there yet.
  package libssl-dev pkg-config --exists openssl
  # librdkafka's cmake asks for curl's headers even where it is built without it.
  package libcurl4-openssl-dev has_curl_headers
  have cargo || missing_other+=("Rust: install rustup (see the Rust web site); rust-toolchain.toml then picks 1.95.0")
}

check_tests() {
  package kcat have kcat
}

check_java() {
  package openjdk-17-jre-headless major_at_least 17 java -version
  package maven have mvn
}

check_one() {
  case "$1" in
    build) check_build ;;
    tests) check_tests ;;
    kafka) check_java ;;
    registry) check_java; package curl have curl ;;
    redis) package redis-server have redis-server ;;
    instructions) package valgrind have valgrind ;;
    python) package python3-venv python3 -c 'import ensurepip, venv' ;;
    postgres) package postgresql has_postgres ;;
    pglite)
      major_at_least 20 node --version && have npm ||
        missing_other+=("Node.js 20 or newer with npm (for the tests of the TimescaleDB migrations)")
      ;;
    *)
      say "prerequisites: unknown part $1"
      exit 2
      ;;
  esac
}

check_all() {
  missing_packages=()
  missing_other=()
  local part
  for part in "$@"; do check_one "$part"; done
  # Two parts may need the same package.
  ((${#missing_packages[@]} == 0)) || mapfile -t missing_packages < <(printf '%s\n' "${missing_packages[@]}" | sort -u)
}

# RUNLEVEL=1: Debian's maintainer scripts then don't start the system's own Redis and PostgreSQL.
apt() {
  local sudo=()
  [[ $(id -u) == 0 ]] || sudo=(sudo)
  "${sudo[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get "$@" >&2
}

install_missing() {
  say "prerequisites: installing ${missing_packages[*]} (apt-get)"
  apt install -y -q --no-install-recommends "${missing_packages[@]}" && return 0
  say "prerequisites: once more, after apt-get update"
  apt update -q && apt install -y -q --no-install-recommends "${missing_packages[@]}"
}

can_install() {
  [[ -z ${FLEETLOG_STACK_NO_INSTALL-} ]] && have apt-get && { [[ $(id -u) == 0 ]] || have sudo; }
}

(($# > 0)) || set -- build tests kafka redis postgres registry pglite python
check_all "$@"
if ((${#missing_packages[@]} > 0)) && can_install; then
  install_missing
  check_all "$@"
fi
if ((${#missing_packages[@]} > 0)); then
  say "prerequisites: missing, by the names of the Debian packages: ${missing_packages[*]}"
  say "  install them, or: apt-get install ${missing_packages[*]}"
fi
for one in "${missing_other[@]}"; do say "prerequisites: missing: $one"; done
((${#missing_packages[@]} + ${#missing_other[@]} == 0))
