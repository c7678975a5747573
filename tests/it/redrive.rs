//! `fleetlog dlq redrive` and `fleetlog repair` on real servers: through the inbox, to the lanes of `fleetlog run`.

use bytes::Bytes;
use fleetlog_codec::{Encoder, SchemaRef, WriterSchema, builtin_schemas, frame};
use fleetlog_event::{Event, TimestampMs, partition_of, robot::Connected};
use fleetlog_kafka::{OwnedRecord, SchemaTopic};
use fleetlog_producer::{Author, ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use fleetlog_testkit::Running;
use serde_json::{Value, json};

use fleetlog_tests::{LIMIT, World, until};

const PARTITIONS: i32 = 6;
const WHY: &str = "the schema is registered now";
pub(crate) const DO_IT: [&str; 7] = ["dlq", "redrive", "--execute", "--yes", "--all", "--why", WHY];

/// A `Connected` as a newer fleetlog will write it: one field more, at the end.
fn newer() -> std::sync::Arc<WriterSchema> {
    let mut newest = builtin_schemas().iter().filter(|schema| schema.name() == Connected::NAME);
    let mut json: Value = serde_json::from_str(newest.next_back().unwrap().json()).unwrap();
    json["fields"].as_array_mut().unwrap().push(json!({ "name": "later", "type": "string", "default": "" }));
    WriterSchema::parse(&json.to_string()).unwrap()
}

pub(crate) fn connected(unit: u64) -> Connected {
    let mut event = Author::new("504", "test", "1").unit(unit.to_string()).connected();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    event.meta.recorded_at = TimestampMs(i64::try_from(now).unwrap());
    event
}

/// The event, as its newest schema has it.
pub(crate) fn encoded(event: &Connected) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::single_object().encode(event, &mut bytes).unwrap();
    bytes
}

/// The same as the newer fleetlog writes it.
fn encoded_newer(event: &Connected) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(SchemaRef::Fingerprint(newer().fingerprint()), &mut bytes);
    let head = bytes.len();
    bytes.extend_from_slice(&encoded(event)[head..]);
    // An empty text.
    bytes.push(0);
    bytes
}

pub(crate) async fn send(world: &World, records: Vec<(String, Vec<u8>)>) {
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&world.kafka(), &ProducerSettings::default(), metrics).unwrap();
    let record = |(key, value): (String, Vec<u8>)| RawRecord {
        topic: world.kafka().topic("robot"),
        partition: Some(partition_of(key.as_bytes(), PARTITIONS)),
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value)),
        ..RawRecord::default()
    };
    producer.send_all(records.into_iter().map(record)).await.all().await.unwrap();
}

/// Events of these units that nobody can read until the schema of a newer fleetlog is there.
pub(crate) async fn send_newer(world: &World, units: &[u64]) {
    let records = units.iter().map(|unit| (format!("s504.u{unit}"), encoded_newer(&connected(*unit))));
    send(world, records.collect()).await;
}

/// So many events of seven units.
pub(crate) fn units_in_turn(count: u64) -> Vec<u64> {
    (0..count).map(|n| n % 7).collect()
}

pub(crate) async fn publish_newer(world: &World) {
    SchemaTopic::new(&world.kafka()).unwrap().publish(&[newer()]).await.unwrap();
}

/// The projectors, once every group has its member.
pub(crate) async fn run(world: &World) -> Running {
    let running = world.fleetlog.spawn(&["run"]).unwrap();
    until("a member in every group", async || {
        let rows = world.json(&["status"]).await;
        rows.as_array().unwrap().iter().all(|row| row["members"] == 1)
    })
    .await;
    running
}

/// Members of the groups over `robot`: a static one stays until its session is over.
async fn members(world: &World) -> u64 {
    let rows = world.json(&["status"]).await;
    rows.as_array().unwrap().iter().map(|row| row["members"].as_u64().unwrap()).sum()
}

pub(crate) async fn stop(running: Running) {
    running.signal("TERM").unwrap();
    assert_eq!(running.wait(LIMIT).await.unwrap().code(), Some(0));
}

/// What lies on `robot` under the keys of two units.
async fn log_of_two(world: &World) -> Vec<OwnedRecord> {
    let mut records = world.records(&world.kafka().topic("robot")).await;
    records
        .retain(|record| [&b"s504.u7"[..], b"s504.u8"].contains(&record.key.as_deref().unwrap_or_default()));
    records
}

/// Commands that lie on the inboxes of the two projections over `robot`.
pub(crate) async fn commands(world: &World) -> usize {
    let mut all = 0;
    for projection in ["unit-status", "event-history"] {
        let group = fleetlog_engine::group_name(&world.prefix, projection, 1);
        all += world.records(&fleetlog_projection::inbox_name(&group, "robot")).await.len();
    }
    all
}

pub(crate) async fn states(world: &World) -> Value {
    world.json(&["dlq", "stats", "--state", "any"]).await["states"].clone()
}

fn events_of(trail: &str, name: &str) -> Vec<Value> {
    let lines = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["type"] == format!("fleetlog.ops.{name}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_for_want_of_a_schema_is_taken_once_it_is_there() {
    let world = World::new("redrive").await;
    world.simulate(300, 1).await;
    send_newer(&world, &units_in_turn(30)).await;
    world.ok(&["run", "--once"]).await;
    assert_eq!(states(&world).await, json!({ "open": 60 }));
    let before = world.verified().await;
    let rows = world.rows().await;

    let dry = world.json(&["dlq", "redrive", "--reason", "unknown_schema", "--sample", "10"]).await;
    assert_eq!((&dry["executed"], &dry["letters"], &dry["matched"]), (&json!(false), &json!(60), &json!(60)));
    assert_eq!(dry["tried"]["rejected"], json!({ "unknown_schema": 10 }), "not fixed yet: {dry:#}");
    publish_newer(&world).await;
    let dry = world.json(&["dlq", "redrive", "--event-type", "Connected", "--sample", "1"]).await;
    assert_eq!(dry["letters"], 60, "what a letter does not tell is read from the event: {dry:#}");

    let running = run(&world).await;
    let dry = world.json(&["dlq", "redrive", "--reason", "unknown_schema"]).await;
    assert_eq!((&dry["tried"]["taken"], &dry["tried"]["letters"]), (&json!(20), &json!(20)), "{dry:#}");
    let text = world.ok(&["dlq", "redrive"]).await;
    assert!(text.contains("60 dead letters would go back") && text.contains("20 would be taken"), "{text}");
    let refused = world.fails(2, &["dlq", "redrive", "--execute", "--yes", "--why", WHY]).await.stderr;
    assert!(refused.contains("60 dead letters match") && refused.contains("--all"), "{refused}");
    let unasked = world.fails(2, &["dlq", "redrive", "--execute", "--all", "--why", WHY]).await.stderr;
    assert!(unasked.contains("no terminal") && unasked.contains("--yes"), "{unasked}");
    world.fails(2, &["dlq", "redrive", "--execute"]).await;

    let first = world.json(&[&DO_IT[..], &["--site", "504", "--max", "10", "--batch", "4"]].concat()).await;
    assert_eq!((&first["outcomes"]["taken"], &first["stays"]), (&json!(10), &json!({ "beyond_max": 50 })));
    let done = world.json(&[&DO_IT[..], &["--canary", "5", "--rate", "1000"]].concat()).await;
    assert_eq!((&done["outcomes"]["taken"], &done["ended"]), (&json!(50), &json!("done")), "{done:#}");
    assert_eq!(commands(&world).await, 60, "each once");

    assert_eq!(states(&world).await, json!({ "redriven": 60 }));
    let after = world.verified().await;
    for projection in ["unit-status", "event-history"] {
        assert_eq!(
            (&before[projection]["set_aside"], &after[projection]["set_aside"]),
            (&json!(30), &json!(0))
        );
    }
    assert_eq!(world.rows().await["unit_event"], rows["unit_event"] + 30);

    let again = world.ok(&DO_IT).await;
    assert!(
        again.contains("nothing to send back: all 60 that match") && again.contains("redriven"),
        "{again}"
    );
    let again = world.json(&DO_IT).await;
    assert_eq!(
        (&again["ended"], &again["left"], &again["outcomes"]["taken"]),
        (&json!("done"), &json!(0), &json!(0))
    );
    assert_eq!(commands(&world).await, 60);
    let trail = world.ok(&["events", "--topic", "ops"]).await;
    let count = |name| events_of(&trail, name).len();
    // Two jobs; the first one's ten letters may be of one group alone.
    let (started, ended) = (count("RedriveStarted"), count("RedriveEnded"));
    assert!(started == ended && (3..=4).contains(&started), "{started} started, {ended} ended");
    let named = events_of(&trail, "DeadLettersRedriven");
    let named = named.iter().flat_map(|line| line["event"]["letters"].as_array().unwrap());
    assert_eq!(named.filter(|letter| letter["outcome"] == "taken").count(), 60);
    let list = world.ok(&["dlq", "list", "--state", "redriven", "--limit", "1"]).await;
    assert!(list.contains("redriven by"), "{list}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_wait_for_projectors_that_do_not_run() {
    let world = World::new("redrive-wait").await;
    // Something for every projection, so that verify has something to compare.
    world.simulate(300, 1).await;
    send_newer(&world, &units_in_turn(6)).await;
    world.ok(&["run", "--once"]).await;
    publish_newer(&world).await;
    until("the member of that run is gone", async || members(&world).await == 0).await;
    let wait = [&DO_IT[..], &["--wait-ms", "1500"]].concat();
    let stalled = world.fails(3, &wait).await;
    assert!(stalled.stderr.contains("no process is in group"), "{}", stalled.stderr);
    assert!(stalled.stderr.contains("they stay in the inbox"), "{}", stalled.stderr);
    let sent = commands(&world).await;
    assert_eq!(sent, 6, "the first group's batch is not answered, so the other group's is not sent");
    let still = world.fails(3, &wait).await.stderr;
    assert!(
        still.contains("commands of an earlier job") && still.contains("nothing new was sent"),
        "{still}"
    );
    assert_eq!(commands(&world).await, sent);

    // A run to the end carries out what lies there; the next job only writes that down.
    world.ok(&["run", "--once"]).await;
    until("the member of that run is gone", async || members(&world).await == 0).await;
    let running = run(&world).await;
    let done = world.json(&DO_IT).await;
    assert_eq!((&done["written_down"], &done["outcomes"]["taken"]), (&json!(6), &json!(6)), "{done:#}");
    assert_eq!(done["left"], 0, "{done:#}");
    assert_eq!(commands(&world).await, 12, "what was sent before was not sent again");
    assert_eq!(states(&world).await, json!({ "redriven": 12 }));
    world.verified().await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_rejected_each_time_is_parked_in_the_end() {
    let world = World::new("redrive-park").await;
    // Something for every projection, so that verify has something to compare.
    world.simulate(300, 1).await;
    send_newer(&world, &units_in_turn(2)).await;
    let running = run(&world).await;
    world.ok(&["status", "--wait", "240"]).await;
    let one = [&DO_IT[..], &["--group", "unit-status", "--replays-max", "2", "--max", "1"]].concat();
    let again = world.fails(1, &one).await.stdout;
    assert!(again.contains("1 rejected again (unknown_schema 1)"), "{again}");
    assert_eq!(states(&world).await, json!({ "open": 4 }), "a new letter says why");
    let parked = world.fails(1, &one).await.stdout;
    assert!(parked.contains("1 rejected again") || parked.contains("1 parked"), "{parked}");
    // `--max 1` takes the oldest: by now that may be the other one.
    for _ in 0..2 {
        world.fleetlog.run(&one, LIMIT).await.unwrap();
    }
    let all = states(&world).await;
    assert_eq!(all, json!({ "open": 2, "parked": 2 }));
    let lying = world.records(&world.kafka().topic("robot-parking")).await;
    assert_eq!(lying.len(), 2);
    let listed = world.json(&["dlq", "list", "--state", "parked"]).await;
    let listed = listed.as_array().unwrap();
    assert_eq!((listed.len(), &listed[0]["replay_count"]), (2, &json!(2)), "{listed:#?}");
    let place = listed[0]["place"].as_str().unwrap();
    assert!(place.starts_with("robot-parking/0/"), "{place}");
    assert!(world.ok(&["dlq", "show", place]).await.contains("parked"));

    let without = world.json(&["dlq", "redrive", "--group", "unit-status"]).await;
    assert_eq!((&without["letters"], &without["stays"]), (&json!(0), &json!({ "parked": 2 })));
    publish_newer(&world).await;
    stop(running).await;
    let running = run(&world).await;
    let done = world.json(&[&DO_IT[..], &["--parked"]].concat()).await;
    assert_eq!(done["outcomes"]["taken"], 2, "{done:#}");
    assert_eq!(states(&world).await, json!({ "open": 2, "redriven": 2 }));
    world.verified().await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_and_a_second_operator_hold_a_redrive_up() {
    let world = World::new("redrive-two").await;
    send_newer(&world, &units_in_turn(8)).await;
    let running = run(&world).await;
    world.ok(&["status", "--wait", "240"]).await;
    let of_group = [&DO_IT[..], &["--group", "event-history"]].concat();
    let canary = world.fails(1, &[&of_group[..], &["--canary", "3"]].concat()).await;
    assert!(
        canary.stderr.contains("of the first 3 letters") && canary.stderr.contains("only 0"),
        "{}",
        canary.stderr
    );
    assert_eq!(commands(&world).await, 3);

    let group = fleetlog_engine::group_name(&world.prefix, "event-history", 1);
    let started = json!({
        "meta": { "site_uid": "", "source": "test/1" }, "action_id": "theirs", "group": group,
        "operator": "bo@control-2", "why": "mine", "selection": "everything", "letters": 8,
        "lease_until": 4_102_444_800_000_i64,
    });
    world.ok(&["emit", "RedriveStarted", "--json", &started.to_string()]).await;
    let refused = world.fails(1, &of_group).await.stderr;
    assert!(refused.contains("bo@control-2 redrives group") && refused.contains("2100-01-01"), "{refused}");
    assert_eq!(commands(&world).await, 3);
    let ended = json!({
        "meta": { "site_uid": "", "source": "test/1" }, "action_id": "theirs", "group": group,
        "end": "done", "taken": 0, "rejected": 0, "parked": 0, "nothing": 0,
    });
    world.ok(&["emit", "RedriveEnded", "--json", &ended.to_string()]).await;
    let outcomes = world.fails(1, &[&of_group[..], &["--format", "json"]].concat()).await.stdout;
    let outcomes: Value = serde_json::from_str(&outcomes).unwrap();
    assert_eq!(outcomes["outcomes"]["rejected"], 8, "{outcomes:#}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_under_a_wrong_key_is_emitted_anew_once_for_every_group() {
    let world = World::new("redrive-anew").await;
    // Something for every projection, so that verify has something to compare.
    world.simulate(300, 1).await;
    send(&world, vec![("s504.u8".to_owned(), encoded(&connected(7)))]).await;
    let running = run(&world).await;
    world.ok(&["status", "--wait", "240"]).await;
    assert_eq!(states(&world).await, json!({ "open": 2 }));
    let dry = world.json(&["dlq", "redrive"]).await;
    assert_eq!((&dry["rows"][0]["way"], &dry["tried"]["untried"]), (&json!("anew"), &json!(2)), "{dry:#}");
    let done = world.json(&DO_IT).await;
    assert_eq!((&done["outcomes"]["taken"], &done["ended"]), (&json!(2), &json!("done")), "{done:#}");
    let on_log = log_of_two(&world).await;
    assert_eq!(on_log.len(), 2);
    let anew = on_log.iter().find(|record| record.key.as_deref() == Some(b"s504.u7")).unwrap();
    assert_eq!(anew.partition, partition_of(b"s504.u7", PARTITIONS));
    assert!(anew.headers.iter().all(|(name, _)| !name.to_string().starts_with("fleetlog-")), "{anew:?}");
    world.verified().await;
    assert_eq!(world.json(&["unit", "show", "s504.u7"]).await["status"]["connection"], "online");
    assert_eq!(states(&world).await, json!({ "redriven": 2 }));
    assert!(world.ok(&DO_IT).await.contains("nothing to send back"));
    assert_eq!(log_of_two(&world).await.len(), 2);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_folded_anew_by_its_lanes() {
    let world = World::new("repair").await;
    world.simulate(300, 1).await;
    let running = run(&world).await;
    world.verified().await;
    let units = world.json(&["unit", "list"]).await;
    let unit = units[0]["unit"].as_str().unwrap();
    let repaired = world.json(&["repair", unit, "--projection", "unit-status"]).await;
    let row = &repaired[0];
    assert_eq!(
        (&row["before"]["revision"], &row["after"]["revision"]),
        (&json!(0), &json!(1)),
        "{repaired:#}"
    );
    assert_eq!(row["before"]["next"], row["after"]["next"], "{repaired:#}");
    let site = fleetlog_event::UnitKey::parse(unit).unwrap().site_uid;
    let all = world.json(&["repair", "--site", &site, "--projection", "unit-status"]).await;
    assert_eq!(all.as_array().unwrap().len(), units.as_array().unwrap().len(), "{all:#}");
    let unknown = world.fails(1, &["repair", "snone.unone"]).await.stderr;
    assert!(unknown.contains("nobody knows `snone.unone`"), "{unknown}");
    world.fails(2, &["repair", unit, "--projection", "event-history"]).await;
    world.verified().await;
    stop(running).await;
}
