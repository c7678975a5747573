//! Other people's clients read what fleetlog writes, and write what fleetlog reads: kcat, a Confluent client in
//! Python, redis-cli, psql. A tool that is missing fails the test and is named.

use std::path::Path;

use fleetlog_testkit::{Fleetlog, Stack, python, workspace_root};
use serde_json::{Value, json};

use crate::{
    import::header,
    import_rig::{PATIENCE, Rig, file, json_of, tool, tool_text},
};

/// The unit that the recordings here are about, its key, and the same as Redis has it.
const UNIT: &str = "swerk1.uNordFTS%2F0001";

/// A recording of two messages: a vehicle comes online and tells its state.
fn recording(folder: &Path) -> String {
    let topic = |kind: &str| format!("werk1/v2/NordFTS/0001/{kind}");
    let connection = json!({"headerId": 1, "timestamp": "2026-11-21T09:04:00.00Z", "version": "2.0.0",
        "connectionState": "ONLINE"});
    let state = json!({"headerId": 1, "timestamp": "2026-11-21T09:04:01.00Z", "version": "2.0.0", "driving": true,
        "lastNodeId": "N7", "batteryState": {"batteryCharge": 61.5, "charging": false}});
    let line = |ts_ms: i64, kind: &str, payload: &Value| json!({"ts_ms": ts_ms, "topic": topic(kind), "qos": 0, "retain": false, "payload": payload.to_string()});
    let path = folder.join("two.jsonl");
    let lines = [
        line(1_795_251_840_000, "connection", &connection).to_string(),
        line(1_795_251_841_000, "state", &state).to_string(),
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.display().to_string()
}

fn registry_url() -> String {
    let url = Stack::from_env().registry_url;
    url.expect("FLEETLOG_TEST_REGISTRY_URL is not set: run `scripts/stack.sh up --with registry`")
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_events_with_their_framing_and_headers() {
    let rig = Rig::topics("kcat").await;
    let folder = tempfile::tempdir().unwrap();
    rig.import(&recording(folder.path())).await;
    let topic = format!("{}robot", rig.prefix);
    let base = ["-b", &rig.stack.brokers, "-C", "-t", &topic, "-e", "-q"];

    // As JSON kcat prints the payload's bytes as they are, which is no UTF-8.
    let records = tool("kcat", &[&base[..], &["-J"]].concat()).await;
    let records = String::from_utf8_lossy(&records);
    let record = json_of(records.lines().next().expect("kcat reads a record"));
    assert_eq!(records.lines().count(), 1, "one event on the topic: {records}");
    assert_eq!(record["key"], UNIT);
    let headers = record["headers"].as_array().unwrap();
    let headers: Vec<_> = headers.chunks(2).map(|pair| (pair[0].as_str().unwrap(), &pair[1])).collect();
    for expected in [
        ("ce_specversion", json!("1.0")),
        ("ce_type", json!("fleetlog.robot.Connected")),
        ("ce_subject", json!(UNIT)),
        ("ce_time", json!("2026-11-21T09:04:00.000Z")),
        ("content-type", json!("application/avro")),
    ] {
        assert!(headers.contains(&(expected.0, &expected.1)), "{expected:?} is not in {headers:?}");
    }

    let value = tool("kcat", &[&base[..], &["-f", "%s"]].concat()).await;
    assert_eq!(value[..2], [0xc3, 0x01], "Avro single-object encoding");
    // The schema of that fingerprint lies on the topic of schemas: Kafka alone is enough to read the event.
    let schemas = rig.records("schemas").await;
    let schema = schemas.iter().find(|schema| schema.key.as_deref() == Some(&value[2..10]));
    let keys: Vec<_> = schemas.iter().map(|schema| &schema.key).collect();
    let schema = schema.unwrap_or_else(|| panic!("no schema of {:02x?} among {keys:02x?}", &value[2..10]));
    let schema: Value = serde_json::from_slice(schema.value.as_deref().unwrap()).unwrap();
    assert_eq!(schema["name"], "Connected", "{schema}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_and_psql_read_the_results() {
    let rig = Rig::whole("plain").await;
    let folder = tempfile::tempdir().unwrap();
    rig.import(&recording(folder.path())).await;
    rig.ok(&["run", "--once"]).await;
    let key = format!("{}UnitConsensus@{UNIT}", rig.prefix);
    let hash = tool_text("redis-cli", &["-u", &rig.stack.redis_url, "HGETALL", &key]).await;
    let words: Vec<&str> = hash.lines().collect();
    let field = |name: &str| words.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    assert_eq!(field("battery_percent"), Some("61.5"), "{hash}");
    assert_eq!(field("last_node_id"), Some("N7"), "{hash}");
    assert_eq!(field("driving"), Some("true"), "{hash}");

    let query = "SELECT event_type, unit_uid, occurred_at AT TIME ZONE 'UTC' FROM unit_event
                 WHERE event_type = 'Connected'";
    let rows = tool_text("psql", &[rig.database_url(), "-At", "-c", query]).await;
    assert_eq!(rows.trim(), "Connected|NordFTS/0001|2026-11-21 09:04:00");
    let query = "SELECT battery_percent, driving, last_node_id FROM telemetry";
    let rows = tool_text("psql", &[rig.database_url(), "-At", "-c", query]).await;
    assert_eq!(rows.trim(), "61.5|t|N7");
}

/// The fleet's binary, set to the registry.
fn with_registry(rig: &Rig) -> Fleetlog {
    rig.fleetlog.clone().env("FLEETLOG_REGISTRY__URL", &registry_url())
}

/// Projects what is there into `unit-status`.
async fn run_unit_status(rig: &Rig) {
    let args = ["run", "--once", "--projections", "unit-status"];
    with_registry(rig).run(&args, PATIENCE).await.unwrap().success().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_python_producer_is_taken() {
    let rig = Rig::whole("python").await;
    let (topic, unit) = (format!("{}robot", rig.prefix), "s504.u1010020021");
    let script = file("docs/python/produce.py").display().to_string();
    let told = tool_text(&python(), &[&script, &rig.stack.brokers, &registry_url(), &topic, unit]).await;
    assert!(told.contains(unit) && told.contains("produce.py/1"), "it reads its own event back: {told}");
    let records = rig.records("robot").await;
    assert_eq!(records[0].value.as_deref().unwrap()[0], 0, "Confluent framing");

    run_unit_status(&rig).await;
    let units = rig.hashes("unit:").await;
    assert_eq!(units.len(), 1, "{units:?}");
    assert_eq!(units[0]["connection"], "online", "{units:?}");
    assert_eq!((&*units[0]["site_uid"], &*units[0]["unit_uid"]), ("504", "1010020021"));
    assert!(rig.records("robot-dlq").await.is_empty(), "no dead letters");
}

/// Prints the key and value of every record of a topic as JSON lines.
const READER: &str = r#"
import json, sys
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
brokers, registry_url, topic = sys.argv[1:]
decode = AvroDeserializer(SchemaRegistryClient({"url": registry_url}))
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader.py", "enable.auto.commit": False})
for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
    place = TopicPartition(topic, partition)
    low, end = consumer.get_watermark_offsets(place, timeout=30)
    if low == end:
        continue
    consumer.assign([TopicPartition(topic, partition, low)])
    message = consumer.poll(30)
    if message is None or message.error():
        sys.exit(f"not read: {message and message.error()}")
    value = decode(message.value(), SerializationContext(topic, MessageField.VALUE))
    print(json.dumps({"key": message.key().decode(), "value": value}, default=str))
consumer.close()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_python_consumer_reads_fleetlogs_events_by_the_registry() {
    let rig = Rig::topics("pyread").await;
    let folder = tempfile::tempdir().unwrap();
    let args = ["import", "vda5050", &recording(folder.path())];
    with_registry(&rig).run(&args, PATIENCE).await.unwrap().success().unwrap();
    let topic = format!("{}telemetry", rig.prefix);
    let told = tool_text(&python(), &["-c", READER, &rig.stack.brokers, &registry_url(), &topic]).await;
    let event = json_of(told.trim());
    assert_eq!(event["key"], UNIT, "{told}");
    assert_eq!(event["value"]["battery_percent"], 61.5, "{told}");
    assert_eq!(event["value"]["last_node_id"], "N7", "{told}");
    assert_eq!(event["value"]["meta"]["unit_uid"], "NordFTS/0001", "{told}");
    assert_eq!(event["value"]["meta"]["occurred_at"], "2026-11-21 09:04:01+00:00", "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn librdkafkas_default_partitioner_is_found_out() {
    let rig = Rig::whole("partitioner").await;
    let topic = format!("{}robot", rig.prefix);
    let script = std::fs::read_to_string(file("docs/python/produce.py")).unwrap();
    let partitioner =
        script.lines().find(|line| line.contains("\"partitioner\"")).expect("it names a partitioner");
    let script = script.replace(partitioner, "").replace(
        "pathlib.Path(__file__).parents[2]",
        &format!("pathlib.Path({:?})", workspace_root().display().to_string()),
    );
    // Both partitioners agree on one key in six.
    let units: Vec<String> = (0..4).map(|unit| format!("s504.u{unit}")).collect();
    for unit in &units {
        tool(
            &python(),
            &["-c", &script.replace("__file__", "'x'"), &rig.stack.brokers, &registry_url(), &topic, unit],
        )
        .await;
    }
    run_unit_status(&rig).await;
    let taken = rig.hashes("unit:").await;
    let letters = rig.records("robot-dlq").await;
    assert!(!letters.is_empty(), "no key of {units:?} went to the wrong partition");
    assert_eq!(taken.len() + letters.len(), units.len(), "every event was taken or set aside");
    let sent = rig.records("robot").await;
    for letter in &letters {
        assert_eq!(header(letter, "fleetlog-dlq-reason"), "wrong_partition");
        let original = sent.iter().find(|record| record.key == letter.key).expect("the key is untouched");
        assert_eq!(letter.value, original.value, "the payload is untouched");
    }
}
