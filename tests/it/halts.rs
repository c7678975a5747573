//! A flood of poison on real servers: the projection is halted, stays so over restarts, and goes on when somebody says so.

use bytes::Bytes;
use fleetlog_event::partition_of;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use fleetlog_testkit::{Running, redis_connection};
use serde_json::{Value, json};

use fleetlog_tests::{LIMIT, World, address_of, get, until};

const KEY: &[u8] = b"s504.u7";
const PARTITIONS: i32 = 6;
/// More than the limit that these tests set, and than a batch has to be cut for.
const FLOOD: usize = 60;

/// A fleet whose projections take no more than twenty poison events in a row.
async fn world(label: &str) -> World {
    let mut world = World::new(label).await;
    world.fleetlog = world.fleetlog.env("FLEETLOG_RUN__SET_ASIDE_IN_A_ROW_MAX", "20");
    world
}

/// Poison into one partition of topic `robot`.
async fn flood(world: &World, count: usize) {
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&world.kafka(), &ProducerSettings::default(), metrics).unwrap();
    let record = |n: usize| RawRecord {
        topic: world.kafka().topic("robot"),
        partition: Some(partition_of(KEY, PARTITIONS)),
        key: Some(Bytes::from_static(KEY)),
        value: Some(Bytes::from(format!("{{\"json\": {n}}}"))),
        timestamp: None,
        headers: Vec::new(),
    };
    producer.send_all((0..count).map(record)).await.all().await.unwrap();
}

async fn start(world: &World, projections: &str) -> (Running, String) {
    let mut running = world.fleetlog.spawn(&["run", "--projections", projections]).unwrap();
    let address = address_of(&mut running).await;
    (running, address)
}

async fn stop(running: Running) -> i32 {
    running.signal("TERM").unwrap();
    running.wait(LIMIT).await.unwrap().code().unwrap()
}

/// What `status` says of a projection.
async fn status(world: &World, projection: &str) -> Value {
    let rows = world.json(&["status"]).await;
    let row = rows.as_array().unwrap().iter().find(|row| row["projection"] == projection);
    row.unwrap_or_else(|| panic!("{projection}: {rows:#}")).clone()
}

async fn until_halted(world: &World, address: &str) {
    until("halted", async || status(world, "unit-status").await["halt"].is_object()).await;
    until("halted in the process", async || {
        get(address, "/readyz").await.1.contains("unit-status is not ready: halted: ")
    })
    .await;
}

fn metric(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_halts_its_projection_over_restarts_until_it_is_resumed_and_no_other() {
    let world = world("halt").await;
    world.simulate(300, 1).await;
    let (running, address) = start(&world, "unit-status,unit-consensus").await;
    until("all taken", async || status(&world, "unit-status").await["lag_events"] == 0).await;
    flood(&world, FLOOD).await;
    until_halted(&world, &address).await;

    // A person, a probe and a dashboard see it.
    let (code, said) = get(&address, "/readyz").await;
    assert_eq!(code, 503);
    assert!(said.contains("in a row") && said.contains("(unknown_framing"), "{said}");
    assert!(said.contains("fleetlog progress resume unit-status --why"), "{said}");
    let (code, said) = get(&address, "/healthz").await;
    assert_eq!(code, 200, "a restart helps nobody: {said}");
    let metrics = get(&address, "/metrics").await.1;
    let halted = |cause: &str, projection: &str| {
        metric(
            &metrics,
            &format!("fleetlog_projection_halted{{cause=\"{cause}\",projection=\"{projection}\"}}"),
        )
    };
    assert_eq!(halted("set_asides_in_a_row", "unit-status").as_deref(), Some("1"), "{metrics}");
    assert_eq!(halted("set_asides_in_a_row", "unit-consensus").as_deref(), Some("0"));
    assert_eq!(metric(&metrics, "fleetlog_projection_up{projection=\"unit-status\"}").as_deref(), Some("0"));
    let row = status(&world, "unit-status").await;
    assert_eq!(row["halt"]["cause"], "set_asides_in_a_row", "{row:#}");
    assert!(row["lag_events"].as_i64().unwrap() >= 40, "{row:#}");
    assert_eq!(status(&world, "unit-consensus").await["halt"], Value::Null);
    for command in [&["status"][..], &["progress", "show", "unit-status"]] {
        let text = world.ok(command).await;
        assert!(text.contains("unit-status is halted since 20"), "{text}");
    }
    let lanes = world.json(&["progress", "show", "unit-status"]).await;
    assert!(lanes.as_array().unwrap().iter().all(|lane| lane["halt"]["partition"].is_i64()), "{lanes:#}");

    // A new process knows, and the other projection goes on in it.
    assert_eq!(stop(running).await, 0, "it waits for a person, and was asked to stop");
    let refused = world.fails(1, &["run", "--once", "--projections", "unit-status"]).await;
    assert!(
        refused.stderr.contains("halted: ") && refused.stderr.contains("progress resume"),
        "{}",
        refused.stderr
    );
    let (running, address) = start(&world, "unit-status,unit-consensus").await;
    until_halted(&world, &address).await;
    assert_eq!(status(&world, "unit-status").await["members"], 0, "it does not join");
    world.simulate(300, 2).await;
    until("the other goes on", async || status(&world, "unit-consensus").await["lag_events"] == 0).await;
    let set_aside = world.json(&["dlq", "stats"]).await["letters"].as_i64().unwrap();
    assert!(set_aside <= 20, "{set_aside} of {FLOOD} set aside");

    // It goes on in the living process, past the flood, and takes what came behind.
    let resume =
        ["progress", "resume", "unit-status", "--why", "a bridge sent JSON", "--set-asides-max", "100"];
    let done = world.json(&resume).await;
    assert_eq!((&done["was_halted"], &done["halt"]["cause"]), (&json!(true), &json!("set_asides_in_a_row")));
    until("all taken", async || status(&world, "unit-status").await["lag_events"] == 0).await;
    until("ready", async || get(&address, "/readyz").await.0 == 200).await;
    assert_eq!(world.json(&["dlq", "stats"]).await["letters"], FLOOD);
    assert_eq!(status(&world, "unit-status").await["halt"], Value::Null);
    assert_eq!(stop(running).await, 0);

    // Who and why, for ever; and what is not halted is said to be so.
    let audit = world.ok(&["events", "--topic", "ops"]).await;
    for part in ["ProjectionHalted", "ProjectionResumed", "a bridge sent JSON", "@"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let again = world.ok(&["progress", "resume", "unit-status", "--why", "to be sure"]).await;
    assert!(again.contains("was not halted"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_stops_every_process_of_the_group_and_a_resume_starts_each() {
    let world = world("halts").await;
    world.simulate(300, 1).await;
    let mut running = Vec::new();
    for _ in 0..2 {
        running.push(start(&world, "unit-status").await);
    }
    until("both are members", async || status(&world, "unit-status").await["members"] == 2).await;
    // A batch in which one event can be taken ends the run.
    until("all taken", async || status(&world, "unit-status").await["lag_events"] == 0).await;
    flood(&world, FLOOD).await;
    for (_, address) in &running {
        until_halted(&world, address).await;
    }
    until("nobody is left", async || status(&world, "unit-status").await["members"] == 0).await;
    // Without a word of what may pass it is halted again.
    world.ok(&["progress", "resume", "unit-status", "--why", "let us see"]).await;
    let halts = async || world.ok(&["events", "--topic", "ops"]).await.matches("ProjectionHalted\"").count();
    until("halted again", async || halts().await == 2).await;
    for (_, address) in &running {
        until_halted(&world, address).await;
    }
    world.ok(&["progress", "resume", "unit-status", "--why", "we know them", "--set-asides-max", "60"]).await;
    until("both are members again", async || status(&world, "unit-status").await["members"] == 2).await;
    until("all taken", async || status(&world, "unit-status").await["lag_events"] == 0).await;
    for (running, _) in running {
        assert_eq!(stop(running).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_failed_tries_again_in_the_living_process_when_it_is_resumed() {
    let world = world("failed").await;
    world.simulate(300, 1).await;
    world.ok(&["run", "--once"]).await;
    let admin = fleetlog_kafka::Admin::new(&world.kafka()).unwrap();
    admin.delete_topics(&[&world.kafka().topic("robot")]).await.unwrap();
    world.ok(&["topics", "apply"]).await;
    let (running, address) = start(&world, "unit-status,unit-consensus").await;
    until("failed", async || get(&address, "/healthz").await.0 == 503).await;
    let shown = "fleetlog_projection_halted{cause=\"failed\",projection=\"unit-status\"}";
    until("shown", async || metric(&get(&address, "/metrics").await.1, shown).as_deref() == Some("1")).await;
    assert_eq!(status(&world, "unit-status").await["halt"], Value::Null, "a restart would try again");

    // What failed is still there: it tries, and fails again.
    let said = world.ok(&["progress", "resume", "unit-status", "--why", "a look"]).await;
    assert!(said.contains("was not halted; where it had failed, it tries again"), "{said}");
    // Rebuilt: its state of the log that is gone is thrown away.
    let mut redis = redis_connection(&world.redis_url).await.unwrap();
    let lanes = format!("{0}fleetlog:{0}unit-status@1:*", world.prefix);
    let keys: Vec<String> = redis::cmd("KEYS").arg(lanes).query_async(&mut redis).await.unwrap();
    assert!(!keys.is_empty());
    let _: i64 = redis::cmd("DEL").arg(keys).query_async(&mut redis).await.unwrap();
    world.ok(&["progress", "resume", "unit-status", "--why", "made anew"]).await;
    until("well again", async || get(&address, "/readyz").await.0 == 200).await;
    assert_eq!(get(&address, "/healthz").await.0, 200);
    assert_eq!(stop(running).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_topic_ops_projections_run_and_what_is_wrong_with_a_resume_is_said() {
    let world = world("no-ops").await;
    let resume = ["progress", "resume", "unit-status", "--why", "w"];
    assert!(world.fails(2, &resume[..3]).await.stderr.contains("--why"));
    assert!(world.fails(2, &[&resume[..4], &[" "]].concat()).await.stderr.contains("--why has 0 bytes"));
    let unknown = world.fails(2, &["progress", "resume", "unit-stat", "--why", "w"]).await.stderr;
    assert!(unknown.contains("no projection or handler `unit-stat`"), "{unknown}");

    let admin = fleetlog_kafka::Admin::new(&world.kafka()).unwrap();
    admin.delete_topics(&[&world.kafka().topic("ops")]).await.unwrap();
    let nothing = world.fails(1, &resume).await.stderr;
    assert!(nothing.contains("no topic") && nothing.contains("fleetlog topics"), "{nothing}");
    world.simulate(300, 1).await;
    let (running, address) = start(&world, "unit-status").await;
    until("all taken", async || status(&world, "unit-status").await["lag_events"] == 0).await;
    flood(&world, FLOOD).await;
    until("halted in the process", async || get(&address, "/readyz").await.1.contains("halted: ")).await;
    world.ok(&["topics", "apply"]).await;
    world.ok(&[&resume[..], &["--set-asides-max", "60"]].concat()).await;
    until("all taken", async || status(&world, "unit-status").await["lag_events"] == 0).await;
    running.signal("TERM").unwrap();
    let ended = running.wait(LIMIT).await.unwrap();
    let told = ended.stderr.matches("nothing can be halted by it or resumed").count();
    assert_eq!((ended.code(), told), (Some(0), 1), "{}", ended.stderr);
}
