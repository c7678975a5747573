//! Records that no projection can take: set aside byte for byte, and nobody stops.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetlog_engine::{End, EngineConfig, RunMode};
use fleetlog_event::{Event as _, partition_of};
use fleetlog_kafka::{HeaderName, OwnedRecord};
use fleetlog_projection::{Fold, MemorySink};

use super::support::{Connects, Fleet, headers, places, total, until};

fn own_partition(key: &[u8]) -> i32 {
    partition_of(key, 6)
}

/// One of each kind, with the reason it has to get.
fn send_poison(fleet: &Fleet) -> Vec<&'static str> {
    let good = fleet.connected(1);
    let key = good.entity().to_string();
    let (key, value) = (key.as_bytes(), fleet.encode(&good));
    let there = own_partition(key);
    let noise: Vec<u8> = [&value[..10], &[0xff; 40]].concat();
    let unknown: Vec<u8> = [&[0xC3, 0x01], &[7_u8; 8][..], &value[10..]].concat();
    // Of an event of its own: the same key and event id again would be a duplicate.
    let trailing: Vec<u8> = [&fleet.encode(&fleet.connected(1))[..], b"more"].concat();
    let huge = [&value[..10], &vec![0x7e; 700_000][..]].concat();
    let telemetry = fleet.encode(&super::support::telemetry(super::support::meta("1", 9_999_999)));
    let mut out = fleet.connected(1);
    out.meta.site_uid = String::new();
    let invalid_key = out.entity().to_string();
    let invalid = fleet.encode(&out);
    let other = fleet.encode(&fleet.connected(2));
    let headers: [(&[u8], Option<&[u8]>); 5] = [
        (b"a", Some(b"1")),
        (b"a", Some(b"\xff\x00")),
        (b"null", None),
        // No text, which the protocol forbids and no broker refuses.
        (b"\xff\xfename", Some(b"\x00")),
        (b"fleetlog-dlq-reason", Some(b"old")),
    ];
    fleet.send_raw(there, Some(key), None, &headers);
    fleet.send_raw(there, Some(key), Some(b""), &headers);
    fleet.send_raw(there, Some(key), Some(b"{\"json\": true}"), &headers);
    fleet.send_raw(there, Some(key), Some(&[0xC3]), &headers);
    fleet.send_raw(there, Some(key), Some(&noise), &headers);
    fleet.send_raw(there, Some(key), Some(&unknown), &headers);
    fleet.send_raw(there, Some(key), Some(&trailing), &headers);
    fleet.send_raw(there, Some(key), Some(&huge), &headers);
    fleet.send_raw(there, Some(key), Some(&telemetry), &headers);
    fleet.send_raw(there, None, Some(&value), &headers);
    fleet.send_raw(there, Some(&[0xff, 0xfe]), Some(&value), &headers);
    fleet.send_raw(there, Some(key), Some(&other), &headers);
    fleet.send_raw((there + 1) % 6, Some(key), Some(&value), &headers);
    fleet.send_raw(
        own_partition(invalid_key.as_bytes()),
        Some(invalid_key.as_bytes()),
        Some(&invalid),
        &headers,
    );
    vec![
        "empty_payload",
        "empty_payload",
        "unknown_framing",
        "unknown_framing",
        "undecodable",
        "unknown_schema",
        "undecodable",
        "undecodable",
        "unknown_event_type",
        "no_key",
        "no_key",
        "wrong_key",
        "wrong_partition",
        "invalid_text",
    ]
}

fn text(headers: &BTreeMap<String, Bytes>, name: &str) -> String {
    String::from_utf8(headers.get(name).unwrap_or_else(|| panic!("no header `{name}`")).to_vec()).unwrap()
}

fn origin(letter: &OwnedRecord) -> (i32, i64) {
    let headers = headers(letter);
    let partition = i32::from_be_bytes(headers["kafka_dlt-original-partition"][..].try_into().unwrap());
    let offset = i64::from_be_bytes(headers["kafka_dlt-original-offset"][..].try_into().unwrap());
    (partition, offset)
}

fn assert_same_bytes(letter: &OwnedRecord, source: &OwnedRecord) {
    assert_eq!((&letter.key, &letter.value), (&source.key, &source.value));
    let foreign = |record: &OwnedRecord| -> Vec<(HeaderName, Option<Bytes>)> {
        let is_foreign = |name: &HeaderName| name.text().is_none_or(|name| matches!(name, "a" | "null"));
        record.headers.iter().filter(|(name, _)| is_foreign(name)).cloned().collect()
    };
    assert_eq!(foreign(letter), foreign(source));
    assert_eq!(foreign(letter).len(), 4);
    assert_eq!(foreign(letter)[3].0.as_ref(), b"\xff\xfename");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_poison_is_set_aside_byte_for_byte_and_the_lanes_go_on() {
    every_kind_is_set_aside("poison", 300).await;
}

/// There headers are left unread at first.
#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_far_from_the_end_of_the_log() {
    every_kind_is_set_aside("poison-far", 200_000).await;
}

async fn every_kind_is_set_aside(label: &str, behind: u64) {
    let fleet = Fleet::on_stack(label).await;
    fleet.connect(300, 30);
    let reasons = send_poison(&fleet);
    fleet.connect(behind, 6_000);
    let sink = MemorySink::new();
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((outcome.end, total(&sink)), (End::CaughtUp, 300 + behind));
    assert_eq!(outcome.stats.set_aside, reasons.len() as u64);

    let source: BTreeMap<(i32, i64), OwnedRecord> =
        fleet.read_all(&fleet.robot()).await.into_iter().map(|r| ((r.partition, r.offset), r)).collect();
    let mut letters = fleet.read_all(&fleet.settings.topic("robot-dlq")).await;
    assert_eq!(letters.len(), reasons.len());
    letters.sort_by_key(|letter| headers(letter)["kafka_dlt-original-offset"].clone());
    let mut found: Vec<String> = Vec::new();
    for letter in &letters {
        let at = origin(letter);
        assert_same_bytes(letter, &source[&at]);
        let all = headers(letter);
        assert_eq!(text(&all, "original-topic"), fleet.robot());
        assert_eq!(text(&all, "__connect.errors.offset"), at.1.to_string());
        assert_eq!(
            text(&all, "fleetlog-dlq-group"),
            format!("{}fleetlog-connects-v1", fleet.settings.topic_prefix)
        );
        let once = letter.headers.iter().filter(|(name, _)| name == "fleetlog-dlq-reason").count();
        assert_eq!(once, 1, "replaced, not appended");
        found.push(text(&all, "fleetlog-dlq-reason"));
    }
    found.sort();
    let mut expected: Vec<&str> = reasons;
    expected.sort_unstable();
    assert_eq!(found, expected);
    let ledger: usize = sink.lanes().iter().map(|lane| sink.lane(lane).ledger.len()).sum();
    assert_eq!(ledger, letters.len(), "each stands in the ledger too");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_store_refuses_are_set_aside_and_the_rest_goes_in() {
    let fleet = Fleet::on_stack("refused").await;
    fleet.connect(600, 60);
    let sink = MemorySink::new();
    sink.refuse([5, 17, 18]);
    let config = EngineConfig { instance: "a".into(), ..EngineConfig::default() };
    let outcome = fleet.run(places(), sink.clone(), config, RunMode::Once).end().await;
    assert_eq!(outcome.end, End::CaughtUp);
    let letters = fleet.read_all(&fleet.settings.topic("robot-dlq")).await;
    assert_eq!(outcome.stats.set_aside, letters.len() as u64, "each published once");
    assert_eq!(sink.rows().len() + letters.len(), 600);
    assert_eq!(letters.len(), 3 * 6, "three offsets of each partition");
    for letter in &letters {
        let all = headers(letter);
        assert_eq!(text(&all, "fleetlog-dlq-reason"), "refused_by_store");
        assert_eq!(text(&all, "fleetlog-dlq-class"), "refused");
        assert!([5, 17, 18].contains(&origin(letter).1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_projector_stops_only_that_projection_and_sets_nothing_aside() {
    let fleet = Fleet::on_stack("panic").await;
    fleet.connect(60, 6);
    let (connects, rows) = (MemorySink::new(), MemorySink::new());
    let config = EngineConfig { instance: "a".into(), ..EngineConfig::default() };
    let other = fleet.run(places(), rows.clone(), config, RunMode::Continuous);
    let running = fleet.run_connects(connects.clone(), "a", RunMode::Continuous);
    until("the good events", || total(&connects) == 60 && rows.rows().len() == 60).await;
    let mut bad = fleet.connected(1);
    bad.protocol = Some("panic".into());
    fleet.send([bad]);
    let outcome = running.end().await;
    let End::Failed(why) = outcome.end else { panic!("{:?}", outcome.end) };
    assert!(why.contains("asked to panic") && why.contains("bug of `connects`"), "{why}");
    assert_eq!((outcome.stats.set_aside, total(&connects)), (0, 60));
    until("the other projection goes on", || rows.rows().len() == 61).await;
    assert_eq!(other.stop().await.end, End::Stopped);
    assert!(fleet.read_all(&fleet.settings.topic("robot-dlq")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_poison_stops_the_projection_and_asks() {
    let fleet = Fleet::on_stack("flood").await;
    let key = b"s504.u1";
    for _ in 0..30 {
        fleet.send_raw(own_partition(key), Some(key), Some(b"noise"), &[]);
    }
    let config = EngineConfig { instance: "a".into(), set_aside_in_a_row_max: 20, ..EngineConfig::default() };
    let sink = MemorySink::new();
    let outcome = fleet.run(Fold::new(Connects), sink.clone(), config, RunMode::Once).end().await;
    let End::Failed(why) = outcome.end else { panic!("{:?}", outcome.end) };
    assert!(why.contains("in a row") && why.contains("progress resume connects"), "{why}");
    let config = EngineConfig { instance: "a".into(), set_aside_in_a_row_max: 30, ..EngineConfig::default() };
    let outcome = fleet.run(Fold::new(Connects), sink.clone(), config, RunMode::Once).end().await;
    let ledger: usize = sink.lanes().iter().map(|lane| sink.lane(lane).ledger.len()).sum();
    assert_eq!((outcome.end, ledger), (End::CaughtUp, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_no_text_stops_nobody() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    let fleet = Fleet::on_stack("header").await;
    let event = fleet.connected(1);
    let key = event.entity().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), fleet.encode(&event)).unwrap();
    let sent = tokio::process::Command::new("kcat")
        .args(["-P", "-b", &fleet.settings.brokers, "-t", &fleet.robot(), "-k", &key, "-H"])
        .arg(OsStr::from_bytes(b"\xff\xfe=1"))
        .args(["-p", &own_partition(key.as_bytes()).to_string()])
        .arg(file.path())
        .status()
        .await
        .unwrap();
    assert!(sent.success());
    fleet.connect(10, 2);
    let sink = MemorySink::new();
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((outcome.end, outcome.stats.set_aside, total(&sink)), (End::CaughtUp, 0, 11));
}
