# shellcheck shell=bash
# A schema registry with the Confluent API, in memory: what the tests of the Confluent framing talk to.

REGISTRY_HOME="$STACK/registry"

registry_install() {
  cmp -s "$SCRIPTS/stack/registry/pom.xml" "$REGISTRY_HOME/pom.xml" && return 0
  say "registry: fetching it (about 142 MB, once)"
  rm -rf "$REGISTRY_HOME"
  mkdir -p "$REGISTRY_HOME"
  mvn -q -B -f "$SCRIPTS/stack/registry/pom.xml" dependency:copy-dependencies \
    "-DoutputDirectory=$REGISTRY_HOME" >"$LOGS/registry-install.log" 2>&1 ||
    { cat "$LOGS/registry-install.log" >&2; die "registry: Maven could not fetch it, its output is above"; }
  tar -xzf "$REGISTRY_HOME"/*.tar.gz -C "$REGISTRY_HOME" || die "registry: unpacking failed"
  rm "$REGISTRY_HOME"/*.tar.gz
  cp "$SCRIPTS/stack/registry/pom.xml" "$REGISTRY_HOME/pom.xml"
}

registry_start() {
  local port
  if is_up registry; then
    say "registry: running on 127.0.0.1:$(remembered "$PORTS_FILE" registry)"
    return 0
  fi
  port="$(port_for registry)" || exit 1
  say "registry: starting"
  REGISTRY_STARTED_MS="$(now_ms)"
  launch registry java -Xmx256m -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$port" \
    -jar "$(find "$REGISTRY_HOME" -maxdepth 1 -name '*-runner.jar')"
}

registry_answers() { # PORT
  curl -fsS -m 2 "http://127.0.0.1:$1/apis/ccompat/v7/subjects"
}

registry_await() {
  local port
  port="$(remembered "$PORTS_FILE" registry)"
  [[ -n ${REGISTRY_STARTED_MS-} ]] && await registry 300 "$REGISTRY_STARTED_MS" "127.0.0.1:$port" registry_answers "$port"
  remember "$ENV_FILE" FLEETLOG_TEST_REGISTRY_URL "http://127.0.0.1:$port/apis/ccompat/v7"
}

registry_stop() { stop_server registry TERM; }
