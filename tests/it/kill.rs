//! What is left after a kill -9, of us or of Redis, and after a SIGTERM: everything, once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleetlog_engine::group_name;
use fleetlog_testkit::{RedisServer, Running};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::Value;

use fleetlog_tests::{LIMIT, World, address_of, get, until};

/// How soon after its start a process has to have written (DESIGN §3).
const FIRST_WRITE_MAX: Duration = Duration::from_secs(3);
const KILLS: usize = 20;

/// A number that decides when things are killed; printed, and `FLEETLOG_TEST_SEED` replays it.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration file")]
    let given = std::env::var("FLEETLOG_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("FLEETLOG_TEST_SEED={seed}");
    seed
}

/// A fleet that goes on until it is told to stop.
fn load(world: &World, rate: &str) -> Running {
    let args = [
        "simulate",
        "--units",
        "40",
        "--rate",
        rate,
        "--events",
        "100000000",
        "--seed",
        "7",
        "--format",
        "json",
    ];
    world.fleetlog.spawn(&args).unwrap()
}

/// Stops it; how many events were acknowledged.
async fn end_load(load: Running) -> i64 {
    load.signal("INT").unwrap();
    let report: Value = serde_json::from_str(&load.wait(LIMIT).await.unwrap().success().unwrap()).unwrap();
    assert_eq!(report["sent"], report["acknowledged"]);
    report["acknowledged"].as_i64().unwrap()
}

/// Nothing is missing, doubled or different.
async fn all_is_there(world: &World, acknowledged: i64) {
    let reports = world.verified().await;
    let set_aside: i64 = reports.values().map(|report| report["set_aside"].as_i64().unwrap()).sum();
    assert_eq!(set_aside, 0, "a healthy fleet's events were set aside");
    let rows = world.rows().await;
    assert_eq!(rows.values().sum::<i64>(), acknowledged, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_and_double_nothing() {
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::new("kill").await;
    let load = load(&world, "400");
    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    world.first_writes(&Default::default(), Instant::now()).await;
    let mut times = Vec::new();
    for kill in 0..KILLS {
        // The moment: anywhere in a second and a half of work; every fourth time once more while it starts.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
        running.kill().await.unwrap();
        if kill % 4 == 3 {
            running = world.fleetlog.spawn(&["run"]).unwrap();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
            running.kill().await.unwrap();
        }
        let (before, begun) = (world.nonces().await.unwrap(), Instant::now());
        running = world.fleetlog.spawn(&["run"]).unwrap();
        times.push(world.first_writes(&before, begun).await.map(|took| took.as_millis()));
    }
    let acknowledged = end_load(load).await;
    println!("{acknowledged} events; first write after the restart, in ms [redis, postgresql]: {times:?}");
    all_is_there(&world, acknowledged).await;
    // The machine of a test stands still for seconds at times, and every process on it.
    let mut sorted: Vec<u128> = times.iter().flatten().copied().collect();
    sorted.sort_unstable();
    let most = sorted[sorted.len() * 3 / 4];
    assert!(most <= FIRST_WRITE_MAX.as_millis(), "of four first writes one took over {most} ms: {times:?}");
    running.signal("TERM").unwrap();
    assert_eq!(running.wait(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_under_load_comes_back_to_the_same_state() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut redis = RedisServer::start().await.unwrap();
    let world = World::new("redis-kill").await.on_redis(&redis);
    let load = load(&world, "400");
    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    let address = address_of(&mut running).await;
    for _ in 0..3 {
        until("ready", async || get(&address, "/readyz").await.0 == 200).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(500..2500))).await;
        redis.kill();
        until("not ready", async || get(&address, "/readyz").await.0 == 503).await;
        let (code, said) = get(&address, "/healthz").await;
        assert_eq!(code, 200, "a store's outage made us sick for good: {said}");
        redis.restart().await.unwrap();
    }
    until("ready again", async || get(&address, "/readyz").await.0 == 200).await;
    assert_eq!(get(&address, "/healthz").await.0, 200);
    let acknowledged = end_load(load).await;
    all_is_there(&world, acknowledged).await;
    assert!(running.pid().is_some(), "{}", running.stderr());
    running.signal("TERM").unwrap();
    let ended = running.wait(LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

/// What the group of a projection has committed, by `topic/partition`.
async fn committed(world: &World, projection: &str) -> BTreeMap<String, i64> {
    let mut config = world.kafka().client();
    config.set("group.id", group_name(&world.prefix, projection, 1));
    let topics: Vec<String> =
        ["robot", "telemetry", "task"].iter().map(|stem| format!("{}{stem}", world.prefix)).collect();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        topics.iter().for_each(|topic| list.add_partition_range(topic, 0, 5));
        let found = consumer.committed_offsets(list, LIMIT).unwrap();
        let elements = found.elements();
        let known = elements.iter().filter_map(|place| match place.offset() {
            Offset::Offset(offset) => Some((format!("{}/{}", place.topic(), place.partition()), offset)),
            _ => None,
        });
        known.collect()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_midst_of_work_is_clean_and_quick() {
    let world = World::new("term").await;
    let load = load(&world, "800");
    let running = world.fleetlog.spawn(&["run"]).unwrap();
    // Of more lanes than one projection has, so that there is something to compare.
    let lanes = async || world.nonces().await.map_or(0, |[hot, history]| hot.len() + history.len());
    until("lanes write", async || lanes().await > 12).await;
    let begun = Instant::now();
    running.signal("TERM").unwrap();
    let ended = running.wait(LIMIT).await.unwrap();
    println!("stopped in {:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("did not close in time"), "{}", ended.stderr);
    // The drain deadline is 8 s; what comes on top is the end of a process on a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());

    let shown = world.json(&["progress", "show"]).await;
    let mut compared = 0;
    for projection in fleetlog_projections::all().iter().map(|known| known.id) {
        let committed = committed(&world, projection).await;
        for lane in shown.as_array().unwrap() {
            let place = lane["lane"].as_str().unwrap();
            let Some(place) = place.strip_prefix(&format!("{projection}@1:")) else { continue };
            let place = place.replace(':', "/");
            if let Some(next) = lane["next"].as_i64().filter(|next| *next > 0) {
                assert_eq!(committed.get(&place), Some(&next), "{projection} {place}: {shown:#}");
                compared += 1;
            }
        }
    }
    assert!(compared > 5, "only {compared} lanes compared: {shown:#}");

    let acknowledged = end_load(load).await;
    world.ok(&["run", "--once"]).await;
    all_is_there(&world, acknowledged).await;
}

/// A broker that takes connections and says nothing: a question to it lasts for seconds, and a stop does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_kafka_ends_at_once_when_it_is_told_to() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::bare("waits").await;
    let brokers = silent.local_addr().unwrap().to_string();
    let mut running =
        world.fleetlog.clone().env("FLEETLOG_KAFKA__BROKERS", &brokers).spawn(&["run"]).unwrap();
    running.line_with("waiting for kafka at", LIMIT).await.unwrap();
    let told = Instant::now();
    running.signal("TERM").unwrap();
    let ended = running.wait(LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    // The question would last for 20 s.
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
}
