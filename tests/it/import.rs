//! `fleetlog import vda5050`: again, killed, twice at once, and with files that are not what they should be.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_kafka::OwnedRecord;
use fleetlog_testkit::Output;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::import_rig::{PATIENCE, RECORDING, Rig, SOURCES, file};

/// The value of a header as text.
pub(crate) fn header(record: &OwnedRecord, name: &str) -> String {
    let found = record.headers.iter().find(|(header, _)| header == name);
    let (_, value) = found.unwrap_or_else(|| panic!("no header {name} in {:?}", record.headers));
    String::from_utf8(value.as_deref().unwrap_or_default().to_vec()).unwrap()
}

/// The ids of all events, in the order of the log, by topic and key.
async fn ids_by_key(rig: &Rig) -> BTreeMap<(&'static str, String), Vec<String>> {
    let mut ids = BTreeMap::<_, Vec<String>>::new();
    for stem in SOURCES {
        for record in rig.records(stem).await {
            let key = String::from_utf8(record.key.as_deref().unwrap().to_vec()).unwrap();
            ids.entry((stem, key)).or_default().push(header(&record, "ce_id"));
        }
    }
    ids
}

/// The lines that the places on `import-places` name, in order.
async fn places(rig: &Rig) -> Vec<u64> {
    let line = |record: &OwnedRecord| {
        let place: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        place["line"].as_u64().unwrap()
    };
    rig.records("import-places").await.iter().map(line).collect()
}

/// Waits until an import has come further than `line`; how far.
async fn place_beyond(rig: &Rig, line: u64) -> u64 {
    let further = async {
        loop {
            match places(rig).await.last() {
                Some(place) if *place > line => return *place,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, further).await;
    waited.unwrap_or_else(|_| panic!("no place beyond line {line} came within {PATIENCE:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_again_adds_nothing_packed_or_not() {
    let rig = Rig::topics("import-again").await;
    let first = rig.import(RECORDING).await;
    assert!(first["events_sent"].as_u64().unwrap() > 30_000, "{first}");
    let ends = rig.ends().await;

    let folder = tempfile::tempdir().unwrap();
    let unpacked = folder.path().join("another name.jsonl");
    let packed = std::fs::read(file(RECORDING)).unwrap();
    std::fs::write(&unpacked, zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    for again in [RECORDING, unpacked.to_str().unwrap()] {
        let report = rig.import(again).await;
        assert_eq!(report["events_sent"], 0, "{again}: {report}");
        assert_eq!(report["dead_letters_sent"], 0, "{again}: {report}");
        assert_eq!(report["lines_already_imported"], first["lines"], "{again}: {report}");
        assert_eq!(report["messages"], first["messages"], "{again}: the report counts the whole file");
        assert_eq!(rig.ends().await, ends, "{again}: the ends of all topics stay where they were");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let rig = Rig::topics("import-killed").await;
    let lines = 30_859;
    let mut place = 0;
    for kill in 1..=3 {
        let mut import = rig.fleetlog.spawn(&["import", "vda5050", RECORDING, "--speed", "80"]).unwrap();
        let begun_at = place;
        place_beyond(&rig, begun_at).await;
        // A moment within the batches that follow: nothing tells of it, it is time itself.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        import.kill().await.unwrap();
        place = *places(&rig).await.last().unwrap();
        assert!(place > begun_at && place < lines, "seed {seed}, kill {kill}: from {begun_at} to {place}");
    }
    let report = rig.import(RECORDING).await;
    // What was committed in the instant of the last kill may have been missed by the look at the places.
    let resumed_at = report["lines_already_imported"].as_u64().unwrap();
    assert!(resumed_at >= place && resumed_at < lines, "seed {seed}: resumed at {resumed_at} after {place}");
    assert_eq!(report["lines_done"], lines, "seed {seed}: {report}");

    let places = places(&rig).await;
    assert!(places.is_sorted_by(|one, next| one < next), "seed {seed}: places go back: {places:?}");
    assert_eq!(places.last(), Some(&lines), "seed {seed}");
    let reference = Rig::topics("import-whole").await;
    reference.import(RECORDING).await;
    let (found, expected) = (ids_by_key(&rig).await, ids_by_key(&reference).await);
    assert_eq!(found.len(), expected.len(), "seed {seed}: keys");
    for (key, expected) in &expected {
        let found = &found[key];
        assert_eq!(found.len(), expected.len(), "seed {seed}: events of {key:?}");
        assert_eq!(found, expected, "seed {seed}: order of the events of {key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_imports_at_once_one_is_fenced_and_nothing_is_doubled() {
    let rig = Rig::topics("import-two").await;
    let args = ["import", "vda5050", RECORDING, "--speed", "60"];
    let first = rig.fleetlog.spawn(&args).unwrap();
    place_beyond(&rig, 0).await;
    let second = rig.import(RECORDING).await;
    let first = first.wait(PATIENCE).await.unwrap();
    assert_refused(
        &first,
        4,
        &["another import of this file has taken over", "one import of a file at a time"],
    );
    assert_eq!(second["lines_done"], second["lines"], "{second}");
    assert!(second["lines_already_imported"].as_u64().unwrap() > 0, "it goes on from the first: {second}");

    let mut ids: Vec<String> = ids_by_key(&rig).await.into_values().flatten().collect();
    let events: u64 = second["events"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(ids.len() as u64, events, "events on the log, and in the whole file");
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an event is there twice");
}

/// A call that was refused, with these texts.
fn assert_refused(output: &Output, code: i32, texts: &[&str]) {
    assert_eq!(output.code(), Some(code), "exit code; stderr: {}", output.stderr);
    for text in texts {
        assert!(output.stderr.contains(text), "`{text}` is not in: {}", output.stderr);
    }
    assert_eq!(output.stdout, "", "a refused import prints no report");
}

/// A line of a recording.
fn line(topic: &str, payload: &str) -> Vec<u8> {
    json!({"ts_ms": 1_795_251_855_866_i64, "topic": topic, "qos": 0, "retain": false, "payload": payload})
        .to_string()
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_become_dead_letters_untouched_and_the_good_ones_go_in() {
    let rig = Rig::topics("import-bad").await;
    let state = "werk1/v2/NordFTS/0001/state";
    let connection = "werk1/v2/NordFTS/0001/connection";
    let not_utf8 = b"no JSON \xff\xfe\x00 at all".to_vec();
    let long = format!("{{\"a\": \"{}\"", "x".repeat(100_000));
    let nan = "{\"driving\": NaN, \u{e9}}";
    // The line; the dead letter's reason, MQTT topic and payload.
    let bad: Vec<(Vec<u8>, &str, &str, &[u8])> = vec![
        (not_utf8.clone(), "bad_line", "", &not_utf8),
        (b"{\"ts_ms\": 1}".to_vec(), "bad_line", "", b"{\"ts_ms\": 1}"),
        (line("werk1/other", "{}"), "not_vda_topic", "werk1/other", b"{}"),
        (line(state, nan), "not_json", state, nan.as_bytes()),
        (line(state, &long), "not_json", state, long.as_bytes()),
        (line(state, "[1, 2]"), "not_an_object", state, b"[1, 2]"),
        (line(state, "{\"any\":  1}"), "missing_field", state, b"{\"any\":  1}"),
        (
            line(connection, "{\"connectionState\":\"ODD\"}"),
            "unknown_value",
            connection,
            b"{\"connectionState\":\"ODD\"}",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.jsonl");
    let mut text = Vec::new();
    for (line, ..) in &bad {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(&line(connection, "{\"connectionState\":\"ONLINE\",\"headerId\":7}"));
    std::fs::write(&path, text).unwrap();

    let report = rig.import(path.to_str().unwrap()).await;
    assert_eq!(report["dead_letters_sent"], bad.len(), "{report}");
    assert_eq!(report["events"], json!({"fleetlog.robot.Connected": 1}), "{report}");
    let letters = rig.records("vda5050-dlq").await;
    assert_eq!(letters.len(), bad.len(), "dead letters on the topic");
    for (index, (_, reason, topic, payload)) in bad.iter().enumerate() {
        let number = (index + 1).to_string();
        let letter = letters.iter().find(|letter| header(letter, "fleetlog-import-line") == number);
        let letter = letter.unwrap_or_else(|| panic!("no dead letter of line {number}"));
        assert_eq!(letter.value.as_deref().unwrap(), *payload, "payload of line {number}");
        assert_eq!(header(letter, "fleetlog-dlq-reason"), *reason, "line {number}");
        assert_eq!(header(letter, "original-topic"), *topic, "line {number}");
        assert_eq!(header(letter, "fleetlog-import-file"), "bad.jsonl", "line {number}");
        assert_eq!(header(letter, "fleetlog-import-digest"), report["digest"], "line {number}");
        assert!(!header(letter, "error-message").is_empty(), "line {number} tells what is wrong");
    }
    let ends = rig.ends().await;
    let again = rig.import(path.to_str().unwrap()).await;
    assert_eq!((&again["dead_letters_sent"], &again["events_sent"]), (&json!(0), &json!(0)), "{again}");
    assert_eq!(rig.ends().await, ends, "a second import adds no dead letters either");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_recordings_are_refused_and_add_nothing() {
    let rig = Rig::topics("import-no").await;
    let before = rig.ends().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let packed = std::fs::read(file(RECORDING)).unwrap();
    std::fs::write(path("empty.jsonl"), b"").unwrap();
    std::fs::write(path("cut.jsonl.zst"), &packed[..packed.len() / 2]).unwrap();

    let missing = rig.call(&["import", "vda5050", &path("none.jsonl")]).await;
    assert_refused(&missing, 2, &["there is no file", "none.jsonl", "hint: "]);
    let empty = rig.call(&["import", "vda5050", &path("empty.jsonl")]).await;
    assert_refused(&empty, 2, &["is empty", "one JSON message a line"]);
    let cut = rig.call(&["import", "vda5050", &path("cut.jsonl.zst")]).await;
    assert_refused(&cut, 4, &["cut.jsonl.zst", "line ", "ends in the middle of its zstd data", "zstd -t"]);
    let speed = rig.call(&["import", "vda5050", RECORDING, "--speed", "0"]).await;
    assert_refused(&speed, 2, &["--speed", "a factor above 0"]);
    assert_eq!(rig.ends().await, before, "nothing was sent");

    let away = rig.fleetlog.clone().env("FLEETLOG_KAFKA__BROKERS", "127.0.0.1:9");
    let no_broker = away.run(&["import", "vda5050", RECORDING], PATIENCE).await.unwrap();
    assert_refused(&no_broker, 3, &["kafka at 127.0.0.1:9 does not answer", "kafka.brokers"]);
    let elsewhere = rig.fleetlog.clone().env("FLEETLOG_KAFKA__TOPIC_PREFIX", "t-import-nowhere-");
    let no_topics = elsewhere.run(&["import", "vda5050", RECORDING], PATIENCE).await.unwrap();
    assert_refused(&no_topics, 4, &["t-import-nowhere-import-places` does not exist", "topics plan"]);
}
