# shellcheck shell=bash
# Apache Kafka, one node in KRaft mode, from the jars of kafka/pom.xml. Sourced by stack.sh.

KAFKA_HOME="$STACK/kafka"
KAFKA_LIBS="$KAFKA_HOME/libs"
# Each test makes some twenty topics of its own, and none is deleted: by the end of `make test` there are tens of thousands of
# partitions, and with 512 MB the broker spent its time collecting garbage (and answered nobody for half a minute).
KAFKA_HEAP_MB=2048

kafka_data() { echo "$(data_home)/kafka/data"; }

# The jars are fetched once per pom.xml: the copy beside them says for which.
kafka_install() {
  cmp -s "$SCRIPTS/stack/kafka/pom.xml" "$KAFKA_LIBS/pom.xml" && return 0
  say "kafka: fetching jars (about 43 MB, once)"
  rm -rf "$KAFKA_LIBS"
  mkdir -p "$KAFKA_LIBS"
  mvn -q -B -f "$SCRIPTS/stack/kafka/pom.xml" dependency:copy-dependencies \
    "-DoutputDirectory=$KAFKA_LIBS" -DincludeScope=runtime >"$LOGS/kafka-install.log" 2>&1 ||
    { cat "$LOGS/kafka-install.log" >&2; die "kafka: Maven could not fetch the jars, its output is above"; }
  cp "$SCRIPTS/stack/kafka/pom.xml" "$KAFKA_LIBS/pom.xml"
}

# What a single node needs, and nothing a topic could hide behind: topics come from `fleetlog topics apply` only.
kafka_properties() { # PORT CONTROLLER_PORT
  cat <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$2
listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$2
advertised.listeners=PLAINTEXT://127.0.0.1:$1
controller.listener.names=CONTROLLER
log.dirs=$(kafka_data)
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=10
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
EOF
}

kafka_start() {
  local port controller_port
  if is_up kafka; then
    say "kafka: running on 127.0.0.1:$(remembered "$PORTS_FILE" kafka)"
    return 0
  fi
  port="$(port_for kafka)" || exit 1
  controller_port="$(port_for kafka-controller)" || exit 1
  kafka_properties "$port" "$controller_port" >"$KAFKA_HOME/server.properties"
  if [[ ! -f $(kafka_data)/meta.properties ]]; then
    mkdir -p "$(kafka_data)"
    # 22 characters of URL-safe base64: what Kafka takes for a cluster id.
    local id
    id="$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=')"
    java -cp "$KAFKA_LIBS/*" kafka.tools.StorageTool format -t "$id" -c "$KAFKA_HOME/server.properties" \
      >"$LOGS/kafka-format.log" 2>&1 || { cat "$LOGS/kafka-format.log" >&2; die "kafka: formatting its folder failed"; }
  fi
  say "kafka: $(find "$KAFKA_LIBS" -name '*.jar' | wc -l | tr -d ' ') jars, starting"
  KAFKA_STARTED_MS="$(now_ms)"
  launch kafka java "-Xmx${KAFKA_HEAP_MB}m" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true \
    "-Dlog4j2.configurationFile=$SCRIPTS/stack/kafka/log4j2.properties" \
    -cp "$KAFKA_LIBS/*" kafka.Kafka "$KAFKA_HOME/server.properties"
}

kafka_answers() { # PORT
  grep -q 'Kafka Server started' "$LOGS/kafka.log" && port_answers "$1"
}

kafka_await() {
  local port
  port="$(remembered "$PORTS_FILE" kafka)"
  [[ -n ${KAFKA_STARTED_MS-} ]] && await kafka 300 "$KAFKA_STARTED_MS" "127.0.0.1:$port" kafka_answers "$port"
  remember "$ENV_FILE" FLEETLOG_KAFKA__BROKERS "127.0.0.1:$port"
  remember "$ENV_FILE" FLEETLOG_KAFKA__REPLICATION 1
  remember "$ENV_FILE" FLEETLOG_STACK_KAFKA_DATA "$(kafka_data)"
  remember "$ENV_FILE" FLEETLOG_STACK_KAFKA_LIBS "$KAFKA_LIBS"
  remember "$ENV_FILE" FLEETLOG_STACK_KAFKA_LOG4J "$SCRIPTS/stack/kafka/log4j2.properties"
}

kafka_stop() { stop_server kafka TERM; }
kafka_wipe() { rm -rf "$(kafka_data)"; }
