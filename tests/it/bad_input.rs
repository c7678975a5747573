//! Bad input through the binary: each with the text a person reads, and the proof that nothing was lost.

use std::time::Duration;

use bytes::Bytes;
use fleetlog_event::partition_of;
use fleetlog_kafka::OwnedRecord;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use serde_json::{Value, json};

use fleetlog_tests::{LIMIT, World};

const PARTITIONS: i32 = 6;
/// What simulated fleets of these tests send.
const EVENTS: u64 = 1000;

/// Everything on a topic.
async fn log(world: &World, stem: &str) -> Vec<OwnedRecord> {
    world.records(&world.kafka().topic(stem)).await
}

fn header<'r>(record: &'r OwnedRecord, name: &str) -> &'r str {
    let value = record.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
    std::str::from_utf8(value.unwrap()).unwrap()
}

/// A record that is to be refused, and why.
struct Poison {
    reason: &'static str,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// One of each kind for the topic `robot`, made from an event and a telemetry record that are well.
fn poisons(well: &OwnedRecord, telemetry: &OwnedRecord) -> Vec<Poison> {
    let (key, value) = (well.key.clone().unwrap().to_vec(), well.value.clone().unwrap().to_vec());
    let at = |reason, partition, key: &[u8], value: &[u8]| Poison {
        reason,
        partition,
        key: Some(key.to_vec()),
        value: Some(value.to_vec()),
    };
    let here = |reason, value: &[u8]| at(reason, well.partition, &key, value);
    let other = b"sx.uother";
    let huge = [&value[..10], &vec![0x7e; 1_000_000]].concat();
    vec![
        here("empty_payload", b""),
        Poison { value: None, ..here("empty_payload", b"") },
        here("unknown_framing", b"\xC3"),
        here("unknown_framing", b"{\"json\": true}"),
        // With an event id of its own: the same key and event id again would be a duplicate.
        here("unknown_schema", &[&[0xC3, 0x01], &[7_u8; 8][..], &[0x55; 40]].concat()),
        here("undecodable", &[&value[..10], &[0xff; 40]].concat()),
        here("undecodable", &huge),
        here("unknown_event_type", telemetry.value.as_deref().unwrap()),
        at("wrong_key", partition_of(other, PARTITIONS), other, &value),
        at("wrong_partition", (well.partition + 1) % PARTITIONS, &key, &value),
        Poison { key: None, ..here("no_key", &value) },
    ]
}

/// Sends them as a plain producer would; where each came to lie, as `partition/offset`.
async fn send(world: &World, poisons: &[Poison]) -> Vec<String> {
    let mut settings = world.kafka();
    settings.properties.insert("message.max.bytes".into(), "2000000".into());
    settings.properties.insert("compression.type".into(), "none".into());
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&settings, &ProducerSettings::default(), metrics).unwrap();
    let mut places = Vec::new();
    for poison in poisons {
        let record = RawRecord {
            topic: settings.topic("robot"),
            partition: Some(poison.partition),
            key: poison.key.clone().map(Bytes::from),
            value: poison.value.clone().map(Bytes::from),
            timestamp: None,
            headers: vec![("kept".into(), Some(Bytes::from_static(b"\xff\x00")))],
        };
        let delivered = producer.send(record).await.unwrap().await.unwrap();
        places.push(format!("{}/{}", delivered.partition, delivered.offset));
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_on_the_topic_is_set_aside_and_the_rest_goes_on() {
    let world = World::new("poison").await;
    let emitted =
        world.json(&["emit", "Connected", "--json", r#"{"meta":{"site_uid":"s","unit_uid":"p"}}"#]).await;
    assert_eq!(emitted["key"], "ss.up");
    world.simulate(EVENTS / 2, 1).await;
    let well = log(&world, "robot")
        .await
        .into_iter()
        .find(|record| record.key.as_deref() == Some(b"ss.up"))
        .unwrap();
    let poisons = poisons(&well, &log(&world, "telemetry").await[0]);
    let places = send(&world, &poisons).await;
    world.simulate(EVENTS / 2, 2).await;
    world.ok(&["run", "--once"]).await;

    let reports = world.verified().await;
    for (projection, report) in &reports {
        let reads_robot = ["unit-status", "event-history"].contains(&projection.as_str());
        let expected = if reads_robot { poisons.len() } else { 0 };
        assert_eq!(report["set_aside"], json!(expected), "{projection}: {report:#}");
    }
    assert_eq!(world.rows().await.values().sum::<i64>(), i64::try_from(EVENTS).unwrap() + 1);

    // Each is there for both projections, with its reason, byte for byte.
    let listed = world.json(&["dlq", "list"]).await;
    let letters = log(&world, "robot-dlq").await;
    for (poison, place) in poisons.iter().zip(&places) {
        let origin = format!("{}robot/{place}", world.prefix);
        let rows: Vec<&Value> =
            listed.as_array().unwrap().iter().filter(|row| row["origin"] == origin).collect();
        assert_eq!(rows.len(), 2, "{origin} ({})", poison.reason);
        for row in rows {
            assert_eq!(row["reason"], poison.reason, "{row:#}");
            let letter = letters.iter().find(|letter| {
                let stem = format!("robot-dlq/{}/{}", letter.partition, letter.offset);
                row["place"] == stem
            });
            let letter = letter.unwrap();
            assert_eq!(letter.value.as_deref(), poison.value.as_deref(), "{origin}: its bytes were touched");
            assert_eq!(letter.key.as_deref(), poison.key.as_deref());
            assert!(letter.headers.contains(&("kept".into(), Some(Bytes::from_static(b"\xff\x00")))));
            assert_eq!(header(letter, "fleetlog-dlq-reason"), poison.reason);
            let shown = world.json(&["dlq", "show", row["place"].as_str().unwrap()]).await;
            assert_eq!(shown["value_bytes"], json!(poison.value.as_ref().map(Vec::len)), "{shown:#}");
            assert_eq!((&shown["reason"], &shown["error"]), (&row["reason"], &row["error"]));
        }
    }
    let text = world.ok(&["dlq", "list", "--reason", "wrong_partition"]).await;
    assert!(text.contains("wrong_partition") && !text.contains("wrong_key"), "{text}");
    let none = world.fails(1, &["dlq", "show", "robot-dlq/0/4711"]).await;
    assert!(none.stderr.contains("robot-dlq/0/4711"), "{}", none.stderr);
    assert!(world.fails(2, &["dlq", "show", "robot-dlq"]).await.stderr.contains("TOPIC/PARTITION/OFFSET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_by_hand_that_is_wrong_is_not_sent() {
    let world = World::new("emit").await;
    let meta = r#""meta":{"site_uid":"s","unit_uid":"u"}"#;
    for (event, json, says) in [
        ("Telemetry", format!("{{{meta},\"battery_percent\":NaN}}"), "no JSON"),
        ("Telemetry", format!("{{{meta},\"battery_percent\":140}}"), "battery_percent"),
        ("Telemetry", format!("{{{meta},\"latitude_deg\":-91}}"), "latitude_deg"),
        ("Telemetry", format!("{{{meta},\"batery_percent\":14}}"), "batery_percent"),
        ("Connected", r#"{"meta":{"site_uid":"s","unit":"u"}}"#.to_owned(), "unit"),
        ("Connected", r#"{"meta":{"unit_uid":"u"}}"#.to_owned(), "site_uid"),
        ("task.Created", format!("{{{meta}}}"), "task_id"),
        ("Conected", "{}".to_owned(), "there is no event `Conected`"),
        ("Connected", "[]".to_owned(), "Connected"),
    ] {
        let said = world.fails(2, &["emit", event, "--json", &json]).await;
        assert!(said.stderr.contains(says), "{event} {json}: {}", said.stderr);
        assert!(said.stderr.contains("hint:") && said.stdout.is_empty(), "{}", said.stderr);
    }
    assert_eq!(world.ok(&["events"]).await, "", "something was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn wild_device_times_are_taken_as_they_are() {
    let world = World::new("times").await;
    for at in [0_i64, 4_102_444_800_000, -62_135_596_800_000] {
        let json = json!({"meta": {"site_uid": "s", "unit_uid": "u", "occurred_at": at}}).to_string();
        world.ok(&["emit", "Connected", "--json", &json]).await;
    }
    world.ok(&["run", "--once"]).await;
    let history = world.ok(&["history", "ss.uu"]).await;
    for time in ["1970-01-01T00:00:00", "2100-01-01T00:00:00", "0001-01-01T00:00:00"] {
        assert!(history.contains(time), "{time}: {history}");
    }
    let lines = world.ok(&["history", "ss.uu", "--format", "json"]).await;
    let recorded: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let year = |row: &Value| row["recorded_at"].as_str().unwrap()[..4].parse::<i32>().unwrap();
    assert_eq!(recorded.len(), 3);
    assert!(recorded.iter().all(|row| year(row) >= 2026), "recorded_at is ours, not the device's: {lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_nobody_knows_are_named_all_at_once() {
    let world = World::bare("settings").await;
    let wrong = world
        .fleetlog
        .clone()
        .env("FLEETLOG_REDIS__URLL", "x")
        .env("FLEETLOG_RUN__BATCH_EVENTS_MAX", "many")
        .run(&["run"], LIMIT)
        .await
        .unwrap();
    assert_eq!(wrong.code(), Some(2), "{}", wrong.stderr);
    for part in
        ["2 problems", "FLEETLOG_REDIS__URLL", "did you mean `redis.url`", "FLEETLOG_RUN__BATCH_EVENTS_MAX"]
    {
        assert!(wrong.stderr.contains(part), "{part}: {}", wrong.stderr);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "[kafka]\nbroker = \"k1:9092\"\n").unwrap();
    let file = file.display().to_string();
    let said = world.fails(2, &["config", "check", "--config", &file]).await.stderr;
    assert!(
        said.contains("mine.toml") && said.contains("`kafka.broker`; did you mean `kafka.brokers`?"),
        "{said}"
    );
    let said = world.fails(2, &["run", "--projections", "unit-statu"]).await.stderr;
    assert!(said.contains("`unit-statu`") && said.contains("unit-status, task-state"), "{said}");

    let secret = world.fleetlog.clone().env("FLEETLOG_REDIS__URL", "redis://me:geheim@127.0.0.1:1/0");
    let secret = secret.env("FLEETLOG_REGISTRY__PASSWORD", "geheim2");
    for format in ["table", "json"] {
        let shown = secret.run(&["config", "show", "--format", format], LIMIT).await.unwrap();
        let shown = shown.success().unwrap();
        assert!(shown.contains("127.0.0.1:1/0") && !shown.contains("geheim"), "{shown}");
    }
    let unreachable = secret.run(&["unit", "list"], Duration::from_secs(30)).await.unwrap();
    assert_eq!(unreachable.code(), Some(3), "{}", unreachable.stderr);
    assert!(unreachable.stderr.contains("127.0.0.1:1") && !unreachable.stderr.contains("geheim"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_not_there_end_a_run_with_the_way_out() {
    let world = World::bare("no-topics").await;
    let said = world.fails(1, &["run"]).await.stderr;
    for stem in ["robot", "telemetry", "task"] {
        assert!(said.contains(&format!("{}{stem}", world.prefix)), "{said}");
    }
    assert!(
        said.contains("topics do not exist") && said.contains("hint:") && said.contains("topics plan"),
        "{said}"
    );
}
