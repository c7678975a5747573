//! What is lost around a redrive: a server in its middle, or the record behind a letter. What the operator is told, and that
//! nothing is lost or doubled by it.

use fleetlog_kafka::Offsets;
use fleetlog_testkit::{FaultProxy, KafkaServer, Running, Way, delete_before};
use serde_json::{Value, json};

use fleetlog_tests::{LIMIT, World, address_of, get, until};

use crate::redrive::{
    DO_IT, commands, connected, encoded, publish_newer, run, send, send_newer, states, stop, units_in_turn,
};

/// Records that were set aside, by each of two groups.
const LETTERS: u64 = 40;
/// Small batches at a low rate: there is a middle to be lost in.
const SLOWLY: [&str; 4] = ["--batch", "2", "--rate", "5"];

/// What was set aside for want of a schema that is there now.
async fn set_aside(world: &World) {
    world.simulate(300, 1).await;
    send_newer(world, &units_in_turn(LETTERS)).await;
    world.ok(&["run", "--once"]).await;
    publish_newer(world).await;
    assert_eq!(states(world).await, json!({ "open": 2 * LETTERS }));
}

async fn redriven(world: &World) -> u64 {
    states(world).await["redriven"].as_u64().unwrap_or(0)
}

/// A redrive of a group that has got somewhere, and not to its end.
async fn in_its_middle(world: &World, group: &str, options: &[&str]) -> Running {
    let before = redriven(world).await;
    let job = world.fleetlog.spawn(&[&DO_IT[..], &SLOWLY, &["--group", group], options].concat()).unwrap();
    until("the first batches", async || redriven(world).await >= before + 4).await;
    job
}

async fn lose(server: &FaultProxy) {
    server.set(Way::Refuse).await;
    server.cut().await;
}

/// Runs the same once more: what is left comes in, whether sent now or by the job before. A job that could not say that it
/// ends is taken over a minute after it was heard last.
async fn the_rest_comes_in(world: &World, group: &str) {
    let again = [&DO_IT[..], &["--group", group]].concat();
    until("the rest of the redrive", async || {
        let again = world.fleetlog.run(&again, LIMIT).await.unwrap();
        let is_held = again.stderr.contains("redrives group");
        assert!(again.code() == Some(0) || is_held, "{}{}", again.stdout, again.stderr);
        !is_held
    })
    .await;
}

/// What the command says itself: from its error on, without what the clients log.
fn error_of(stderr: &str) -> String {
    stderr.lines().skip_while(|line| !line.starts_with("error:")).collect::<Vec<_>>().join("\n")
}

async fn all_came_in_once(world: &World) {
    assert_eq!(states(world).await, json!({ "redriven": 2 * LETTERS }));
    assert_eq!(commands(world).await as u64, 2 * LETTERS, "each was sent once");
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_are_lost_are_waited_for_and_named() {
    let mut world = World::new("redrive-stores").await;
    let redis = FaultProxy::start_before(&world.stack.redis_url).await.unwrap();
    let postgres = FaultProxy::start_before(world.database.url()).await.unwrap();
    world.fleetlog = world
        .fleetlog
        .env("FLEETLOG_REDIS__URL", &redis.url_instead(&world.stack.redis_url).unwrap())
        .env("FLEETLOG_POSTGRES__URL", &postgres.url_instead(world.database.url()).unwrap());
    set_aside(&world).await;
    let mut running = run(&world).await;
    let address = address_of(&mut running).await;

    // Back in time: the job goes on by itself.
    let job = in_its_middle(&world, "unit-status", &["--format", "json"]).await;
    lose(&redis).await;
    until("lanes that wait for it", async || {
        let (code, said) = get(&address, "/readyz").await;
        code == 503 && said.contains("unit-status") && said.contains("redis")
    })
    .await;
    redis.set(Way::Pass).await;
    let done = job.wait(LIMIT).await.unwrap().success().unwrap();
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!((&done["ended"], &done["outcomes"]["taken"]), (&json!("done"), &json!(LETTERS)), "{done:#}");

    // Away for longer than one waits: it says what is away, and ends.
    let job = in_its_middle(&world, "event-history", &["--wait-ms", "1500"]).await;
    lose(&postgres).await;
    let given_up = job.wait(LIMIT).await.unwrap();
    assert_eq!(given_up.code(), Some(3), "{}", given_up.stderr);
    let said = error_of(&given_up.stderr);
    assert!(said.contains("postgresql") && said.contains("hint:"), "{}", given_up.stderr);
    postgres.set(Way::Pass).await;
    the_rest_comes_in(&world, "event-history").await;

    all_came_in_once(&world).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_lost_doubles_nothing() {
    let mut kafka = KafkaServer::start().await.unwrap();
    let world = World::on_kafka(&kafka, "redrive-broker").await;
    set_aside(&world).await;
    let running = run(&world).await;

    let job = in_its_middle(&world, "unit-status", &[]).await;
    kafka.kill();
    kafka.restart().await.unwrap();
    let ended = job.wait(LIMIT).await.unwrap();
    // It went on, or it could not know how it stood: then it says so.
    assert!(matches!(ended.code(), Some(0 | 3)), "{:?}: {}", ended.code(), ended.stderr);

    let job = in_its_middle(&world, "event-history", &["--wait-ms", "1500"]).await;
    kafka.kill();
    let given_up = job.wait(LIMIT).await.unwrap();
    assert_eq!(given_up.code(), Some(3), "{}", given_up.stderr);
    let said = error_of(&given_up.stderr);
    // What failed depends on where it was lost: the answer of a broker, or an acknowledgement of kafka.
    let names_it = ["Broker", "brokers", "kafka"].iter().any(|name| said.contains(name));
    assert!(names_it && said.contains("fleetlog doctor"), "{}", given_up.stderr);
    kafka.restart().await.unwrap();
    the_rest_comes_in(&world, "unit-status").await;
    the_rest_comes_in(&world, "event-history").await;

    all_came_in_once(&world).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_record_is_gone_goes_back_into_history_and_makes_no_state_older() {
    let world = World::new("redrive-gone").await;
    send(&world, vec![("s504.u9".to_owned(), encoded(&connected(9)))]).await;
    send_newer(&world, &[1, 9]).await;
    world.ok(&["run", "--once"]).await;
    publish_newer(&world).await;
    let topic = world.kafka().topic("robot");
    let ends = Offsets::new(&world.kafka()).unwrap().ranges(&[&topic]).await.unwrap();
    let ends = ends.into_iter().map(|((_, partition), range)| (partition, range.end)).collect();
    delete_before(&world.kafka(), &topic, &ends).await.unwrap();
    assert_eq!(world.records(&topic).await.len(), 0);
    let before = world.json(&["unit", "show", "s504.u9"]).await;

    let running = run(&world).await;
    let history = world.json(&[&DO_IT[..], &["--group", "event-history"]].concat()).await;
    assert_eq!(history["outcomes"]["taken"], 2, "the bytes are the letter's: {history:#}");
    assert_eq!(world.rows().await["unit_event"], 3);
    // What followed these events in their entities is not known any more.
    let hot = world.fails(1, &[&DO_IT[..], &["--group", "unit-status", "--format", "json"]].concat()).await;
    let hot: Value = serde_json::from_str(&hot.stdout).unwrap();
    assert_eq!(hot["rejected_for"], json!({ "no_place": 2 }), "{hot:#}");
    let shown = world.ok(&["dlq", "list", "--state", "open"]).await;
    assert!(shown.contains("no_place") && shown.contains("the log begins at offset"), "{shown}");
    assert_eq!(world.json(&["unit", "show", "s504.u9"]).await["status"], before["status"]);
    assert_eq!(states(&world).await, json!({ "open": 2, "redriven": 2 }));
    stop(running).await;
}
