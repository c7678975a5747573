//! The index of dead letters in SQL: it says what the topics say, `verify` finds whatever it has otherwise, and where it cannot
//! answer the topics do.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetlog_kafka::HeaderName;
use fleetlog_producer::RawRecord;
use fleetlog_tests::{LIMIT, World};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, Row as _};

use crate::dead_letters::{WHY, doubled, foreign, poisoned, send};

/// Letters that nobody would write: by the platform with a NUL in its message, with times beyond any calendar, without a header,
/// without anything.
fn odd(topic: &str) -> Vec<RawRecord> {
    let header = |name: &str, value: &[u8]| (HeaderName::from(name), Some(Bytes::copy_from_slice(value)));
    let record = |key: Option<&'static [u8]>, headers| RawRecord {
        topic: topic.to_owned(),
        key: key.map(Bytes::from_static),
        value: None,
        headers,
        ..RawRecord::default()
    };
    let wild = i64::MAX.to_string();
    vec![
        record(
            Some(b"\xff\x00"),
            vec![header("original-topic", b"orders"), header("error-message", b"a\0b")],
        ),
        record(
            Some(b""),
            vec![
                header("fleetlog-dlq-group", b"odd"),
                header("fleetlog-dlq-timestamp", wild.as_bytes()),
                header("fleetlog-dlq-first-failure", b"-9223372036854775808"),
                header("fleetlog-dlq-attempts", b"4294967295"),
                header("fleetlog-import-file", b"a:b.jsonl"),
                header("fleetlog-import-line", b"7"),
            ],
        ),
        record(Some(b"k"), vec![]),
        record(None, vec![]),
    ]
}

/// What a command says by the index, which has to be what it says by the topics.
async fn same(world: &World, command: &str, options: &[&str]) -> Value {
    let ask = async |source: &str| {
        let mut told = world.json(&[&["dlq", command, "--source", source], options].concat()).await;
        // The one thing that goes by the clock.
        if let Some(told) = told.as_object_mut() {
            told.remove("oldest_age_ms");
        }
        told
    };
    let by_topic = ask("topic").await;
    assert_eq!(ask("sql").await, by_topic, "{command} {options:?}: by the index, by the topics");
    by_topic
}

/// Group, origin, state, place and reason of every letter.
type Told = BTreeMap<(String, String), (String, String, String)>;

fn told(listed: &Value) -> Told {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let row = |row: &Value| {
        let id = (text(row, "group"), text(row, "origin"));
        (id, (text(row, "state"), text(row, "place"), text(row, "reason")))
    };
    listed.as_array().unwrap().iter().map(row).collect()
}

/// The same of the view; and how many letters it has counted in all.
async fn by_view(world: &World) -> (Told, i64) {
    let sql = "SELECT consumer_group, origin, state, place, reason, letters FROM dead_letters";
    let rows = sqlx::query(sql).fetch_all(&mut world.postgres().await).await.unwrap();
    let letters = rows.iter().map(|row| row.get::<i64, _>(5)).sum();
    let told = rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3), row.get(4))));
    (told.collect(), letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_says_what_the_topics_say() {
    let world = poisoned("index-same").await;
    let topic = world.kafka().topic("robot-dlq");
    send(&world, [foreign(&topic), odd(&topic)].concat()).await;
    doubled(&world).await;
    let discard = ["dlq", "discard", "--set-aside-for", "unknown_framing", "--group", "unit-status"];
    world.json(&[&discard[..], &["--reason", WHY, "--execute", "--yes"]].concat()).await;
    world.ok(&["run", "--once"]).await;

    let any = ["--state", "any", "--limit", "1000"];
    let all = same(&world, "list", &any).await;
    assert_eq!(
        all.as_array().unwrap().len(),
        19,
        "10 of ours, 9 of others, of which 3 tell no origin: {all:#}"
    );
    for options in [
        &[][..],
        &["--state", "discarded"],
        &["--reason", "unknown_framing,no_key"],
        &["--class", "reject", "--topic", "robot"],
        &["--group", "unit-status,billing", "--state", "any"],
        &["--key", "s504.u7", "--state", "any"],
        &["--since", "1h", "--until", "1s"],
        &["--topic", "task"],
        &["--id", all[4]["place"].as_str().unwrap(), "--state", "any"],
    ] {
        same(&world, "list", options).await;
        same(&world, "stats", options).await;
    }
    assert_eq!(same(&world, "stats", &[]).await["states"], json!({ "discarded": 3, "open": 16 }));
    let auto = world.fleetlog.run(&["dlq", "list"], LIMIT).await.unwrap();
    assert!(!auto.stderr.contains("cannot answer"), "{}", auto.stderr);

    let (viewed, letters) = by_view(&world).await;
    assert_eq!(viewed, told(&all));
    assert_eq!(letters, i64::try_from(world.records(&topic).await.len()).unwrap());

    // What failed again after it was given up is open again.
    doubled(&world).await;
    world.ok(&["run", "--once"]).await;
    let again = same(&world, "list", &any).await;
    assert_eq!(by_view(&world).await.0, told(&again));
    assert_eq!(same(&world, "stats", &[]).await["states"]["discarded"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_whatever_the_index_has_otherwise() {
    let world = poisoned("index-verify").await;
    let topic = world.kafka().topic("robot-dlq");
    send(&world, [foreign(&topic), odd(&topic)].concat()).await;
    world.json(&["dlq", "discard", "--reason", WHY, "--max", "4", "--execute", "--yes"]).await;
    world.ok(&["run", "--once"]).await;
    let verify = ["verify", "--projection", "dead-letters,dead-letter-actions", "--wait", "5"];
    let clean = world.json(&verify).await;
    let compared = |n: usize| clean[n]["compared"].as_u64().unwrap() as usize;
    assert_eq!((compared(0), compared(1)), (world.records(&topic).await.len(), 4), "{clean:#}");

    let mut postgres = world.postgres().await;
    for damage in [
        "UPDATE dead_letter SET reason = 'x' WHERE consumer_group = 'billing'",
        "DELETE FROM dead_letter WHERE consumer_group = 'jdbc-sink'",
        "INSERT INTO dead_letter SELECT * FROM dead_letter WHERE consumer_group = 'odd'",
        "CREATE TEMPORARY TABLE beyond AS SELECT * FROM dead_letter WHERE consumer_group = 'billing';
         UPDATE beyond SET log_offset = 4711; INSERT INTO dead_letter SELECT * FROM beyond",
        "UPDATE dead_letter_action SET why = 'x' WHERE number = 0",
    ] {
        postgres.execute(damage).await.unwrap();
    }
    postgres.close().await.unwrap();
    let said = world.fails(1, &[&verify[..], &["--format", "json"]].concat()).await.stdout;
    let reports: Value = serde_json::from_str(&said).unwrap();
    let counts = |report: &Value| ["missing", "extra", "different"].map(|kind| report[kind].clone());
    assert_eq!(counts(&reports[0]), [json!(1), json!(2), json!(1)], "{reports:#}");
    assert!(reports[1]["different"].as_u64().unwrap() >= 1, "{reports:#}");
    for part in ["reason is x, the log says java.lang.IllegalStateException", "jdbc-sink", "4711"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_index_cannot_answer_the_topics_do() {
    let world = poisoned("index-down").await;
    let listed = world.json(&["dlq", "list", "--source", "topic"]).await;
    let auto = async |fleetlog: &fleetlog_testkit::Fleetlog, says: &str| {
        let output = fleetlog.run(&["dlq", "list", "--format", "json"], LIMIT).await.unwrap();
        assert_eq!(output.code(), Some(0), "{}", output.stderr);
        assert!(
            output.stderr.contains(says) && output.stderr.contains("reading the topics"),
            "{}",
            output.stderr
        );
        assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap(), listed);
    };
    // Nobody has run it yet.
    auto(&world.fleetlog, "projection dead-letters is 10 records behind").await;
    let behind = world.fails(1, &["dlq", "list", "--source", "sql"]).await.stderr;
    assert!(behind.contains("10 records behind") && behind.contains("--source topic"), "{behind}");

    world.ok(&["run", "--once"]).await;
    let down = world.fleetlog.clone().env("FLEETLOG_POSTGRES__URL", "postgres://nobody@127.0.0.1:1/none");
    auto(&down, "postgresql at postgres://nobody@127.0.0.1:1/none does not answer").await;
    let refused = down.run(&["dlq", "stats", "--source", "sql"], LIMIT).await.unwrap();
    assert_eq!(refused.code(), Some(3), "{}", refused.stderr);

    // The site of a letter without a unit's key stands in its payload.
    let by_site = ["dlq", "list", "--site", "504"];
    let said = world.fails(1, &[&by_site[..], &["--source", "sql"]].concat()).await.stderr;
    assert!(said.contains("only payloads tell"), "{said}");
    assert_eq!(world.json(&by_site).await.as_array().unwrap().len(), 8);
    let foreign = ["dlq", "list", "--source", "sql", "--dlq-topic", "other"];
    let said = world.fails(2, &foreign).await.stderr;
    assert!(said.contains("own dead-letter topics only"), "{said}");
}
