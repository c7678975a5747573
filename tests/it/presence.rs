//! Presence on real servers: the vehicles of the recording, and two workers of which one dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufRead as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use fleetlog_event::{
    Event as _, EventId, EventSet as _, FleetEvent, TimestampMs,
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_producer::EventProducer;
use fleetlog_testkit::{Fleetlog, Running, WallClock};
use fleetlog_tests::{LIMIT, until};
use fleetlog_vda5050::{Line, Mapper};
use serde_json::Value;
use tokio::{task::JoinHandle, time::Instant};

use crate::import_rig::{RECORDING, Rig, file};

/// How much faster than recorded a part of the recording is played.
const SPEED: i64 = 3;
/// Longer than a busy machine holds up a broker: who is not heard for that long is silent, whoever was to blame.
const TIMEOUT_MS: i64 = 30_000;
/// How often a vehicle that lives is heard.
const BEAT: Duration = Duration::from_millis(300);
/// A vehicle that broke at 187 s of the recording, lived on without ONLINE, and died at 467 s without another last will.
const DIED: &str = "swerk1.uRollwerk%2F0003";
/// Vehicles that live to the end under a broken state.
const BROKEN_ALIVE: [&str; 3] =
    ["shub-nord.uKranich%20Robotik%2Fkr_a1b2", "swerk1.uRollwerk%2F0002", "swerk2.uRollwerk%2F0102"];

fn settings(fleetlog: &Fleetlog) -> Fleetlog {
    fleetlog
        .clone()
        .env("FLEETLOG_PRESENCE__TIMEOUT_MS", &TIMEOUT_MS.to_string())
        .env("FLEETLOG_PRESENCE__INTERVAL_MS", "250")
        .env("FLEETLOG_PRESENCE__LEASE_MS", "10000")
}

/// Vehicles that are heard, each with what it last said, until they are taken out.
struct Beats {
    last: Arc<Mutex<BTreeMap<String, Telemetry>>>,
    beating: JoinHandle<()>,
}

impl Beats {
    fn start(producer: EventProducer) -> Self {
        let last: Arc<Mutex<BTreeMap<String, Telemetry>>> = Arc::default();
        let said = Arc::clone(&last);
        let beating = tokio::spawn(async move {
            loop {
                let now: Vec<Telemetry> = said.lock().unwrap().values().cloned().collect();
                for mut telemetry in now {
                    telemetry.meta.event_id = EventId::now_v7();
                    telemetry.meta.recorded_at = TimestampMs(0);
                    drop(producer.send(telemetry).await.unwrap());
                }
                tokio::time::sleep(BEAT).await;
            }
        });
        Self { last, beating }
    }

    fn set(&self, telemetry: Vec<Telemetry>) {
        *self.last.lock().unwrap() =
            telemetry.into_iter().map(|telemetry| (telemetry.entity().to_string(), telemetry)).collect();
    }

    fn dies(&self, unit: &str) {
        assert!(self.last.lock().unwrap().remove(unit).is_some(), "{unit} was not heard");
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// `connection` and `disconnect_reason` of every unit that hot state knows.
async fn connections(rig: &Rig) -> BTreeMap<String, String> {
    let field = |hash: &BTreeMap<String, String>, name: &str| hash.get(name).cloned().unwrap_or_default();
    let shown = |hash: BTreeMap<String, String>| {
        let unit = fleetlog_event::UnitKey::new(field(&hash, "site_uid"), field(&hash, "unit_uid"));
        let text = format!("{} {}", field(&hash, "connection"), field(&hash, "disconnect_reason"));
        (unit.to_string(), text.trim().to_owned())
    };
    rig.hashes("unit:").await.into_iter().map(shown).collect()
}

/// What presence said, as it lies on the log, by unit.
async fn said(rig: &Rig) -> BTreeMap<String, Vec<Value>> {
    let mut said: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in rig.ok(&["events", "--topic", "robot"]).await.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["event"]["meta"]["source"].as_str().unwrap().starts_with("fleetlog-presence/") {
            said.entry(event["key"].as_str().unwrap().to_owned()).or_default().push(event);
        }
    }
    said
}

/// Units of which presence said that they fell silent, as often as it did.
async fn silent(rig: &Rig) -> Vec<String> {
    let is_timeout = |event: &&Value| event["event"]["reason"] == "timeout";
    let said = said(rig).await;
    said.iter().flat_map(|(unit, said)| said.iter().filter(is_timeout).map(|_| unit.clone())).collect()
}

/// The recording's events but for those of tasks, each with its time in ms since the beginning.
fn recording() -> Vec<(i64, FleetEvent)> {
    let reader = std::io::BufReader::new(zstd::Decoder::new(File::open(file(RECORDING)).unwrap()).unwrap());
    let (mut mapper, mut events, mut start_ms) = (Mapper::new("recording-a"), Vec::new(), None);
    for (number, line) in (1..).zip(reader.lines()) {
        let line = Line::parse(line.unwrap().as_bytes()).unwrap();
        let at_ms = line.ts_ms - *start_ms.get_or_insert(line.ts_ms);
        // The producer fills in when it was taken in.
        let of_line = mapper.line(&line, number, TimestampMs(0)).events;
        let kept = of_line.into_iter().filter(|event| !matches!(event, FleetEvent::Task(_)));
        events.extend(kept.map(|event| (at_ms, event)));
    }
    events
}

/// What each vehicle said last before `until_ms`, of those that spoke in the two seconds before.
fn living_at(events: &[(i64, FleetEvent)], until_ms: i64) -> Vec<Telemetry> {
    let mut last = BTreeMap::new();
    let spoken = events.iter().filter(|(at_ms, _)| (until_ms - 2000..until_ms).contains(at_ms));
    for (_, event) in spoken {
        if let FleetEvent::Telemetry(TelemetryEvent::Telemetry(telemetry)) = event {
            last.insert(event.entity(), telemetry.clone());
        }
    }
    last.into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn vehicles_of_the_recording_that_live_are_online_and_one_that_died_is_offline() {
    /// From here on it is played in time.
    const FROM_MS: i64 = 462_000;
    let rig = Rig::topics("presence").await;
    let fleetlog = settings(&rig.fleetlog);
    let _projectors = fleetlog.spawn(&["run", "--projections", "unit-consensus,unit-status"]).unwrap();
    let producer = EventProducer::connect(&rig.stack.kafka(&rig.prefix)).unwrap();
    let events = recording();
    let (before, played) = events.split_at(events.partition_point(|(at_ms, _)| *at_ms < FROM_MS));
    for (_, event) in before {
        drop(producer.send_any(event.clone()).await.unwrap());
    }
    assert_eq!(producer.flush(LIMIT).await.undelivered.len(), 0);
    until("the broken state", async || {
        let connections = connections(&rig).await;
        BROKEN_ALIVE.iter().all(|unit| connections.get(*unit).is_some_and(|shown| shown == "offline broken"))
    })
    .await;

    // They live where they are, and are online though nobody says so.
    let beats = Beats::start(producer.clone());
    beats.set(living_at(before, FROM_MS));
    let mut presence = fleetlog.spawn(&["presence"]).unwrap();
    presence.line_with("watching for units", LIMIT).await.unwrap();
    until("the living under a broken state are online", async || {
        let connections = connections(&rig).await;
        BROKEN_ALIVE.iter().chain([&DIED]).all(|unit| connections[*unit] == "online")
    })
    .await;

    // The last seconds, in which four sign off, one breaks, and one just dies.
    beats.set(Vec::new());
    let begun = Instant::now();
    for (at_ms, event) in played {
        let due_ms = u64::try_from((at_ms - FROM_MS) / SPEED).unwrap();
        tokio::time::sleep_until(begun + Duration::from_millis(due_ms)).await;
        drop(producer.send_any(event.clone()).await.unwrap());
    }
    beats.set(living_at(played, played.last().unwrap().0));
    until("the dead one is offline", async || connections(&rig).await[DIED] == "offline timeout").await;

    let connections = connections(&rig).await;
    let of = |shown: &str| connections.values().filter(|it| *it == shown).count();
    assert_eq!([of("online"), of("offline graceful")], [18, 4], "{connections:#?}");
    assert_eq!(connections["swerk2.uRollwerk%2F0104"], "offline broken");
    assert_eq!(silent(&rig).await, [DIED], "nobody else was called silent\n{}", presence.stderr());
    let said = &said(&rig).await[DIED];
    let lost = &said.last().unwrap();
    let time = |value: &Value| value.as_i64().unwrap();
    let silent_ms = time(&lost["event"]["meta"]["recorded_at"]) - time(&lost["event"]["meta"]["occurred_at"]);
    println!("said {silent_ms} ms after it was last heard");
    assert!(silent_ms >= TIMEOUT_MS, "{silent_ms}");
    presence.signal("TERM").unwrap();
    assert_eq!(presence.wait(LIMIT).await.unwrap().code(), Some(0));
}

fn telemetry(unit_uid: &str) -> Telemetry {
    let text = format!(
        r#"{{"meta": {{"event_id": "{}", "occurred_at": 0, "recorded_at": 0, "site_uid": "504",
            "unit_uid": "{unit_uid}", "source": "test"}}, "battery_percent": 50.0}}"#,
        EventId::now_v7()
    );
    serde_json::from_str(&text).unwrap()
}

/// Waits until presence has said that `unit` fell silent; exactly `expected` did so far, each once.
async fn falls_silent(rig: &Rig, unit: &str, expected: &[&str]) {
    until(unit, async || connections(rig).await.get(unit).is_some_and(|it| it == "offline timeout")).await;
    let found = silent(rig).await;
    let distinct: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!((distinct, found.len()), (expected.iter().copied().collect(), expected.len()), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_workers_watches_and_neither_a_freeze_nor_a_kill_nor_a_clock_floods_anybody() {
    let rig = Rig::topics("presence2").await;
    let clock = WallClock::new().unwrap();
    let fleetlog = clock
        .variables()
        .iter()
        .fold(settings(&rig.fleetlog), |fleetlog, (name, value)| fleetlog.env(name, value));
    let _projectors = rig.fleetlog.spawn(&["run", "--projections", "unit-consensus,unit-status"]).unwrap();
    let beats = Beats::start(EventProducer::connect(&rig.stack.kafka(&rig.prefix)).unwrap());
    beats.set((1..=8).map(|n| telemetry(&n.to_string())).collect());
    let mut first = fleetlog.spawn(&["presence"]).unwrap();
    first.line_with("watching for units", LIMIT).await.unwrap();
    let mut second = fleetlog.spawn(&["presence"]).unwrap();
    second.line_with("another worker watches", LIMIT).await.unwrap();
    // Nobody ever said that they are connected; they are heard.
    until("all are online", async || {
        let connections = connections(&rig).await;
        connections.len() == 8 && connections.values().all(|it| it == "online")
    })
    .await;

    // Clocks jump, there and back (brokers take nothing from further ahead).
    clock.jump_to(50 * 60).unwrap();
    beats.dies("s504.u1");
    falls_silent(&rig, "s504.u1", &["s504.u1"]).await;
    clock.jump_to(-86_400).unwrap();

    // The first is frozen; the second takes over, and goes on alone when the first wakes up.
    first.signal("STOP").unwrap();
    second.line_with("watching for units", LIMIT).await.unwrap();
    beats.dies("s504.u2");
    falls_silent(&rig, "s504.u2", &["s504.u1", "s504.u2"]).await;
    first.signal("CONT").unwrap();
    first.line_with("standing by", LIMIT).await.unwrap();

    // The second is killed; a third, begun anew, or the first takes over.
    second.kill().await.unwrap();
    let third = fleetlog.spawn(&["presence"]).unwrap();
    beats.dies("s504.u3");
    falls_silent(&rig, "s504.u3", &["s504.u1", "s504.u2", "s504.u3"]).await;

    // And is back with its telemetry: once.
    beats.last.lock().unwrap().insert("s504.u3".to_owned(), telemetry("3"));
    until("it is online", async || connections(&rig).await["s504.u3"] == "online").await;
    let said = said(&rig).await;
    let kinds = |unit: &str| said[unit].iter().map(kind_of).collect::<Vec<_>>();
    assert_eq!(kinds("s504.u3"), ["Connected", "Disconnected", "Connected"]);
    assert_eq!(kinds("s504.u4"), ["Connected"]);
    stop(first).await;
    stop(third).await;
}

fn kind_of(event: &Value) -> String {
    event["type"].as_str().unwrap().rsplit('.').next().unwrap().to_owned()
}

async fn stop(worker: Running) {
    worker.signal("TERM").unwrap();
    let ended = worker.wait(LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}
