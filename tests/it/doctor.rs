//! `fleetlog doctor` on a good stack, and on stacks broken on purpose: each cause is found and its cure named. Where the
//! cure is a command of fleetlog's own, it is carried out and the finding is gone.

use std::{collections::BTreeSet, time::Duration};

use fleetlog_codec::{SchemaRef, builtin_schemas, frame, newest};
use fleetlog_event::catalogue::{Catalogue, TopicSpec};
use fleetlog_kafka::{Admin, SchemaTopic};
use fleetlog_testkit::{Output, RedisServer, WallClock, kafka_data, redis_connection};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;

use fleetlog_tests::{LIMIT, World, until};

/// How long producers and consumers of these tests wait.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a run of `doctor` found, and how it ended.
struct Found {
    code: i32,
    report: Value,
}

impl Found {
    fn of(output: &Output) -> Self {
        let report = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
        Self { code: output.code().unwrap(), report }
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.report["findings"].as_array().unwrap().iter()
    }

    /// The one finding of that code, which has that severity, says all of `words`, and tells why and what to do.
    fn one(&self, code: &str, severity: &str, words: &[&str]) -> &Value {
        let of_code = self.findings().filter(|finding| finding["code"] == code);
        let telling = of_code
            .filter(|finding| words.iter().all(|word| finding["found"].as_str().unwrap().contains(word)));
        let found: Vec<&Value> = telling.collect();
        let [finding] = found[..] else { panic!("{code} {words:?}: {:#}", self.report) };
        assert_eq!(finding["severity"], severity, "{finding:#}");
        assert!(!finding["reason"].as_str().unwrap().is_empty());
        if severity != "ok" {
            assert!(finding["action"].as_str().is_some_and(|action| !action.is_empty()), "{finding:#}");
        }
        finding
    }

    /// The codes of all findings of that severity.
    fn codes(&self, severity: &str) -> BTreeSet<&str> {
        let of_severity = self.findings().filter(|finding| finding["severity"] == severity);
        of_severity.map(|finding| finding["code"].as_str().unwrap()).collect()
    }
}

async fn doctor(world: &World, areas: &str) -> Found {
    let args = ["doctor", "--area", areas, "--format", "json"];
    Found::of(&world.fleetlog.run(&args, LIMIT).await.unwrap())
}

/// The topics as this stack has to have them.
fn specs(world: &World) -> Vec<TopicSpec> {
    Catalogue::builtin().expand(&world.prefix, world.stack.replication)
}

/// A payload that names this schema.
fn payload(schema: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    frame::write(SchemaRef::Fingerprint(schema), &mut payload);
    payload.extend([0x55; 40]);
    payload
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_stack_has_no_error() {
    let world = World::new("healthy").await;
    world.simulate(300, 1).await;
    let running = world.fleetlog.spawn(&["run"]).unwrap();
    let processes = async || {
        let rows = world.json(&["status"]).await;
        rows.as_array().unwrap().iter().all(|row| row["members"] == 1)
    };
    until("a member in every group", processes).await;
    world.ok(&["status", "--wait", "240"]).await;

    // How full this machine's disks are is not what is tested.
    let found = doctor(&world, "kafka,topics,schemas,records,groups,redis,postgres,clock").await;
    assert_eq!((found.code, found.codes("error")), (0, BTreeSet::new()), "{:#}", found.report);
    let areas: BTreeSet<&str> = found.findings().map(|finding| finding["area"].as_str().unwrap()).collect();
    assert_eq!(areas.len(), 8, "{areas:?}");
    let ok = found.codes("ok");
    for code in [
        "kafka-reachable",
        "topics-as-files",
        "schemas-coverage",
        "records-partitioner",
        "groups-members",
        "groups-foreign-member",
        "redis-eviction",
        "postgres-migrations",
        "clock-redis",
        "clock-postgres",
    ] {
        assert!(ok.contains(code), "{code}: {:#}", found.report);
    }
    for severity in ["error", "warning", "info", "ok"] {
        let count = found.findings().filter(|finding| finding["severity"] == severity).count();
        assert_eq!(found.report[format!("{severity}s")], count, "{severity}");
    }

    let text = world.fleetlog.run(&["doctor"], LIMIT).await.unwrap().stdout;
    assert!(text.contains("doctor: "), "{text}");
    let long = text.lines().filter(|line| line.chars().count() > 100 && !line.trim_start().starts_with('$'));
    assert_eq!(long.count(), 0, "{text}");
    // The stack without containers keeps the broker's files here; in a container they are elsewhere.
    let cluster = found.one("kafka-reachable", "ok", &["cluster "])["found"].as_str().unwrap();
    let cluster_id = cluster.split([' ', ',']).nth(1).unwrap();
    let properties = kafka_data().and_then(|data| std::fs::read_to_string(data.join("meta.properties")).ok());
    let is_here = properties.is_some_and(|text| text.contains(cluster_id));
    let of_broker = if is_here { "broker 1's `" } else { "free space of broker " };
    let disks = doctor(&world, "disk").await;
    let of_kafka: Vec<&Value> = disks.findings().filter(|finding| finding["code"] == "disk-kafka").collect();
    assert!(
        of_kafka.len() == 1 && of_kafka[0]["found"].as_str().unwrap().starts_with(of_broker),
        "{of_kafka:#?}"
    );
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_fail_where_one_asks_for_it_and_wrong_areas_are_named() {
    let world = World::new("strict").await;
    // A stack of one broker cannot keep the promise of three.
    if world.stack.replication == Some(1) {
        let args = ["doctor", "--area", "topics"];
        let said = world.ok(&args).await;
        assert!(said.contains("warning  topics-durability: replication factor 1"), "{said}");
        world.fails(1, &[&args[..], &["--strict"]].concat()).await;
    }
    let said = world.fails(2, &["doctor", "--area", "reddis"]).await.stderr;
    assert!(said.contains("reddis") && said.contains("kafka, topics, schemas"), "{said}");
    world.fails(2, &["doctor", "--timeout", "0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_found_and_the_command_told_cures_it() {
    let options = ["maxmemory-policy allkeys-lru", "appendonly no", "maxmemory 1gb"];
    let redis = RedisServer::start_with(&options).await.unwrap();
    let world = World::bare("evicts").await.on_redis(&redis);
    let found = doctor(&world, "redis").await;
    assert_eq!(found.code, 1);
    let eviction = found.one("redis-eviction", "error", &["allkeys-lru"]);
    found.one("redis-persistence", "warning", &["append-only"]);
    let command = eviction["command"].as_str().unwrap();
    let (url, set) = command.strip_prefix("redis-cli -u ").unwrap().split_once(' ').unwrap();
    let mut words = set.split(' ');
    let mut cure = redis::cmd(words.next().unwrap());
    for word in words {
        cure.arg(word);
    }
    let mut connection = redis_connection(url).await.unwrap();
    let _: String = cure.query_async(&mut connection).await.unwrap();
    let cured = doctor(&world, "redis").await;
    assert_eq!(cured.code, 0, "{:#}", cured.report);
    cured.one("redis-eviction", "ok", &["noeviction"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_not_as_their_files_say_are_found_and_apply_cures_what_it_may() {
    let world = World::bare("topics").await;
    let named = |stem: &str| format!("{}{stem}", world.prefix);
    let mut broken = specs(&world);
    broken.retain(|spec| spec.name != named("schemas"));
    for spec in &mut broken {
        let mut set = |name, value: &str| drop(spec.configs.insert(name, value.to_owned()));
        if spec.name == named("task") {
            set("min.insync.replicas", "7");
        } else if spec.name == named("task-dlq") {
            set("message.timestamp.type", "CreateTime");
        } else if spec.name == named("telemetry") {
            set("retention.ms", "3600000");
        } else if spec.name == named("robot") {
            spec.partitions = 3;
        }
    }
    let admin = Admin::new(&world.kafka()).unwrap();
    admin.apply(&admin.plan(&broken).await.unwrap()).await.unwrap();

    let found = doctor(&world, "topics").await;
    assert_eq!(found.code, 1);
    let apply = "fleetlog topics apply";
    for (code, words) in [
        ("topics-missing", [named("schemas"), String::new()]),
        ("topics-min-isr", [named("task: "), "is 7".into()]),
        ("topics-timestamp-type", [named("task-dlq"), "should be LogAppendTime".into()]),
        ("topics-retention", [named("telemetry"), "is 3600000, should be 604800000".into()]),
    ] {
        let finding = found.one(code, "error", &[&words[0], &words[1]]);
        assert_eq!(finding["command"], apply, "{finding:#}");
    }
    found.one("topics-in-sync", "error", &[&named("task/0"), "no writes"]);
    let robot = [&*named("robot"), "has 3 partitions, should be 6"];
    let partitions = found.one("topics-partitions", "error", &robot);
    assert!(partitions["action"].as_str().unwrap().contains("rebuild"), "{partitions:#}");

    // What apply may do is done; partitions of a keyed topic it refuses.
    world.fails(1, &["topics", "apply"]).await;
    let cured = doctor(&world, "topics").await;
    assert_eq!(cured.codes("error"), BTreeSet::from(["topics-partitions"]), "{:#}", cured.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_tables_is_found_and_migrate_cures_it() {
    let world = World::bare("tables").await;
    let found = doctor(&world, "postgres").await;
    assert_eq!(found.code, 1);
    let finding = found.one("postgres-migrations", "error", &["version 0", "0001_progress"]);
    assert_eq!(finding["command"], "fleetlog migrate");
    world.ok(&["migrate"]).await;
    let cured = doctor(&world, "postgres").await;
    assert_eq!(cured.code, 0, "{:#}", cured.report);
    // More connections than any server has.
    let greedy = world.fleetlog.clone().env("FLEETLOG_POSTGRES__CONNECTIONS_MAX", "5000");
    let args = ["doctor", "--area", "postgres", "--format", "json"];
    let found = Found::of(&greedy.run(&args, LIMIT).await.unwrap());
    found.one("postgres-connections", "error", &["a process takes up to"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_readers_will_look_for_in_vain_are_found_and_publish_cures_it() {
    let world = World::new("coverage").await;
    let kafka = world.kafka();
    // Nothing was produced yet: worth knowing, and nothing more.
    doctor(&world, "schemas").await.one("schemas-coverage", "info", &["nothing was produced"]);

    let lost = newest("fleetlog.robot.Connected").unwrap().fingerprint();
    let rest: Vec<_> =
        builtin_schemas().iter().filter(|schema| schema.fingerprint() != lost).cloned().collect();
    SchemaTopic::new(&kafka).unwrap().publish(&rest).await.unwrap();
    doctor(&world, "schemas").await.one("schemas-coverage", "warning", &["robot.Connected"]);

    let producer: BaseProducer = kafka.producer().create().unwrap();
    for (topic, schema) in [("robot", lost), ("task", 0x0123_4567_89ab_cdef)] {
        let (topic, payload) = (kafka.topic(topic), payload(schema));
        producer.send(BaseRecord::to(&topic).key("s1.u1").payload(&payload)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    let found = doctor(&world, "schemas").await;
    assert_eq!(found.code, 1);
    let finding = found.one("schemas-coverage", "error", &["robot.Connected", "schemas`"]);
    assert_eq!(finding["command"], "fleetlog schemas publish");
    found.one("schemas-unknown", "error", &["0123456789abcdef", &kafka.topic("task/")]);
    world.ok(&["schemas", "publish"]).await;
    assert_eq!(doctor(&world, "schemas").await.codes("error"), BTreeSet::from(["schemas-unknown"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_asked_where_one_is_configured() {
    let mut world = World::new("registry").await;
    let nobody = world.fleetlog.clone().env("FLEETLOG_REGISTRY__URL", "http://127.0.0.1:1");
    let args = ["doctor", "--area", "schemas", "--format", "json"];
    let away = Found::of(&nobody.run(&args, LIMIT).await.unwrap());
    assert_eq!(away.code, 1);
    away.one("schemas-registry", "error", &["127.0.0.1:1"]);
    let Some(url) = world.stack.registry_url.clone() else { return };
    world.fleetlog = world.fleetlog.env("FLEETLOG_REGISTRY__URL", &url);
    doctor(&world, "schemas").await.one("schemas-coverage", "info", &["in the registry"]);
    world.ok(&["schemas", "publish"]).await;
    let there = doctor(&world, "schemas").await;
    assert_eq!(there.code, 0, "{:#}", there.report);
    there.one("schemas-coverage", "ok", &["in the registry"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_with_librdkafkas_default_partitioner_is_named() {
    let world = World::new("crc").await;
    let (kafka, topic) = (world.kafka(), world.kafka().topic("robot"));
    let schema = payload(builtin_schemas()[0].fingerprint());
    // The client as it comes, without fleetlog's settings.
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &kafka.brokers).create().unwrap();
    for n in 0..60 {
        producer.send(BaseRecord::to(&topic).key(&format!("s1.u{n}")).payload(&schema)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    let found = doctor(&world, "records").await;
    assert_eq!(found.code, 1);
    let finding =
        found.one("records-partitioner", "error", &[&topic, "librdkafka's default partitioner", "`s1.u"]);
    assert!(finding["action"].as_str().unwrap().contains("murmur2_random"), "{finding:#}");
    found.one("records-keys", "ok", &["have a key"]);
    // Sampled are the newest: as soon as enough right ones came after them there is nothing to find.
    let right: BaseProducer = kafka.producer().create().unwrap();
    for n in 0..600 {
        right.send(BaseRecord::to(&topic).key(&format!("s1.u{n}")).payload(&schema)).unwrap();
    }
    right.flush(TIMEOUT).unwrap();
    let output = world.ok(&["doctor", "--area", "records", "--records", "10", "--format", "json"]).await;
    assert!(output.contains("\"errors\": 0"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_a_projections_group_is_found() {
    let world = World::new("stranger").await;
    let group = format!("{}fleetlog-unit-status-v1", world.prefix);
    let mut config = world.kafka().consumer(&group);
    config.set("client.id", "report-job").set("partition.assignment.strategy", "range");
    let topic = world.kafka().topic("robot");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let joined = tokio::task::spawn_blocking(move || {
        let begun = std::time::Instant::now();
        while consumer.assignment().unwrap().count() == 0 {
            assert!(begun.elapsed() < LIMIT, "no assignment");
            drop(consumer.poll(Duration::from_millis(50)));
        }
        consumer
    });
    let consumer = joined.await.unwrap();
    let found = doctor(&world, "groups").await;
    assert_eq!(found.code, 1);
    found.one("groups-foreign-member", "error", &["unit-status", "`report-job`", "6 partitions"]);
    found.one("groups-protocol", "error", &["`range`"]);
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_a_finding_and_the_others_are_looked_at() {
    let world = World::new("down").await;
    let args = ["doctor", "--timeout", "10", "--format", "json"];
    let without_kafka = world.fleetlog.clone().env("FLEETLOG_KAFKA__BROKERS", "127.0.0.1:1");
    let found = Found::of(&without_kafka.run(&args, LIMIT).await.unwrap());
    assert_eq!(found.code, 1);
    found.one("kafka-reachable", "error", &["127.0.0.1:1"]);
    for area in ["topics", "schemas", "records", "groups"] {
        found.one(&format!("{area}-unseen"), "warning", &["kafka-reachable"]);
    }
    found.one("redis-eviction", "ok", &[]);
    found.one("postgres-migrations", "ok", &[]);

    let without_stores = world
        .fleetlog
        .clone()
        .env("FLEETLOG_REDIS__URL", "redis://:secret@127.0.0.1:1/0")
        .env("FLEETLOG_POSTGRES__URL", "postgres://fleetlog:secret@127.0.0.1:1/fleetlog");
    let output = without_stores.run(&args, LIMIT).await.unwrap();
    assert!(!output.stdout.contains("secret") && !output.stderr.contains("secret"), "{}", output.stdout);
    let found = Found::of(&output);
    assert_eq!(found.code, 1);
    found.one("redis-reachable", "error", &["127.0.0.1:1"]);
    found.one("postgres-reachable", "error", &["127.0.0.1:1"]);
    found.one("topics-as-files", "ok", &[]);
    // Who asks for one area is told of nothing else.
    let only = without_stores.run(&["doctor", "--area", "topics", "--format", "json"], LIMIT).await.unwrap();
    assert_eq!(Found::of(&only).codes("error"), BTreeSet::new(), "{}", only.stdout);
    let only = without_kafka.run(&["doctor", "--area", "redis", "--format", "json"], LIMIT).await.unwrap();
    assert_eq!(Found::of(&only).code, 0, "{}", only.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_say_nothing_are_found_in_bounded_time() {
    let world = World::bare("silent").await;
    // It takes connections (the system does), and never reads from one.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let fleetlog = world
        .fleetlog
        .clone()
        .env("FLEETLOG_KAFKA__BROKERS", &address.to_string())
        .env("FLEETLOG_REDIS__URL", &format!("redis://{address}/0"))
        .env("FLEETLOG_POSTGRES__URL", &format!("postgres://fleetlog@{address}/fleetlog"));
    // Of the settings a statement may take 30 s; three areas, 3 s each, and a busy machine.
    let output = fleetlog.run(&["doctor", "--timeout", "3", "--format", "json"], Duration::from_secs(25));
    let found = Found::of(&output.await.unwrap());
    assert_eq!(found.code, 1);
    for code in ["kafka-reachable", "redis-reachable", "postgres-reachable"] {
        found.one(code, "error", &[&address.to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_found() {
    let world = World::new("clock").await;
    world.simulate(50, 1).await;
    let clock = WallClock::new().unwrap();
    clock.jump_to(-120).unwrap();
    let mut behind = world.fleetlog.clone();
    for (name, value) in clock.variables() {
        behind = behind.env(name, &value);
    }
    let args = ["doctor", "--area", "clock", "--format", "json"];
    let found = Found::of(&behind.run(&args, LIMIT).await.unwrap());
    assert_eq!(found.code, 1);
    for (code, words) in [
        ("clock-redis", "ahead of this host's"),
        ("clock-postgres", "ahead of this host's"),
        ("clock-records", "from the future"),
    ] {
        found.one(code, "error", &[words]);
    }
    let right = doctor(&world, "clock").await;
    assert_eq!(right.code, 0, "{:#}", right.report);
}
