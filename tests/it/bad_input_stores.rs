//! Servers and logs that are not as they should be: down, without a schema, full, made anew, cut.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_testkit::{KafkaServer, PostgresServer, RedisServer, Running, delete_before, redis_connection};
use serde_json::Value;
use sqlx::Executor as _;

use fleetlog_tests::{LIMIT, World, address_of, get, until};

const EVENTS: u64 = 600;

/// How far every lane of a projection is.
async fn progress(world: &World, projection: &str) -> BTreeMap<String, i64> {
    let lanes = world.json(&["progress", "show", projection]).await;
    let next = |lane: &Value| (lane["lane"].as_str().unwrap().to_owned(), lane["next"].as_i64().unwrap_or(0));
    lanes.as_array().unwrap().iter().map(next).collect()
}

/// How many events each projection has not taken.
async fn lags(world: &World) -> BTreeMap<String, i64> {
    let mut lags = BTreeMap::new();
    for row in world.json(&["status"]).await.as_array().unwrap() {
        *lags.entry(row["projection"].as_str().unwrap().to_owned()).or_default() +=
            row["lag_events"].as_i64().unwrap();
    }
    lags
}

/// Asks a running process to stop; its stderr and exit code.
async fn stop(running: Running) -> (Option<i32>, String) {
    running.signal("TERM").unwrap();
    let ended = running.wait(LIMIT).await.unwrap();
    (ended.code(), ended.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_stops_its_projections_and_nobody_else() {
    let world = World::new("again").await;
    world.simulate(EVENTS, 1).await;
    world.ok(&["run", "--once"]).await;
    let (before, rows) = (progress(&world, "unit-status").await, world.rows().await);
    let admin = fleetlog_kafka::Admin::new(&world.kafka()).unwrap();
    admin.delete_topics(&[&world.kafka().topic("robot")]).await.unwrap();
    world.ok(&["topics", "apply"]).await;
    world.simulate(EVENTS, 2).await;

    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    let address = address_of(&mut running).await;
    until("stopped for good", async || {
        let (code, said) = get(&address, "/healthz").await;
        code == 503 && said.contains("unit-status") && said.contains("event-history")
    })
    .await;
    until("the others have caught up", async || {
        let lags = lags(&world).await;
        ["unit-consensus", "telemetry-history", "task-state"].iter().all(|other| lags[*other] == 0)
    })
    .await;
    let (code, said) = stop(running).await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["projection `unit-status` stopped for good", "deleted and made again", "rebuild", "adopt"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(progress(&world, "unit-status").await, before, "a lane moved on a log that is not its own");
    let after = world.rows().await;
    assert_eq!(after["unit_event"], rows["unit_event"]);
    assert!(after["telemetry"] > rows["telemetry"], "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_beyond_progress_is_told_and_not_passed_over() {
    let world = World::new("retention").await;
    world.simulate(EVENTS, 1).await;
    world.ok(&["run", "--once"]).await;
    world.simulate(EVENTS, 2).await;
    let before = progress(&world, "unit-consensus").await;
    let lost = |(lane, next): (&String, &i64)| {
        let partition: i32 = lane.rsplit(':').next().unwrap().parse().unwrap();
        (partition, if *next > 0 { next + 1 } else { 0 })
    };
    let lost: BTreeMap<i32, i64> = before.iter().map(lost).collect();
    delete_before(&world.kafka(), &world.kafka().topic("telemetry"), &lost).await.unwrap();

    let said = world.fails(1, &["run", "--once"]).await.stderr;
    for part in [
        "projection `unit-consensus` stopped",
        "projection `telemetry-history` stopped",
        "retention overtook it",
        "1 offsets are lost",
        "rebuild",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(progress(&world, "unit-consensus").await, before);
    let lags = lags(&world).await;
    assert_eq!([lags["unit-status"], lags["task-state"], lags["event-history"]], [0; 3], "{lags:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_down_at_the_start_is_waited_for() {
    let mut redis = RedisServer::start().await.unwrap();
    let world = World::new("redis-down").await.on_redis(&redis);
    world.simulate(EVENTS, 1).await;
    redis.stop().await.unwrap();
    let said = world.fails(3, &["run", "--fail-fast"]).await.stderr;
    assert!(said.contains("error:") && said.contains("redis"), "{said}");

    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    let address = address_of(&mut running).await;
    until("it says that it waits", async || {
        let (code, said) = get(&address, "/readyz").await;
        code == 503 && said.contains("unit-status is not ready") && said.contains("redis")
    })
    .await;
    assert_eq!(get(&address, "/healthz").await.0, 200);
    redis.restart().await.unwrap();
    world.verified().await;
    assert_eq!(stop(running).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_down_at_the_start_is_waited_for() {
    let mut postgres = PostgresServer::start().await.unwrap();
    let mut world = World::bare("sql-down").await;
    world.fleetlog = world.fleetlog.env("FLEETLOG_POSTGRES__URL", &postgres.url());
    world.ok(&["topics", "apply"]).await;
    world.ok(&["migrate"]).await;
    world.simulate(EVENTS, 1).await;
    postgres.stop().await.unwrap();
    let said = world.fails(3, &["run", "--fail-fast"]).await.stderr;
    assert!(said.contains("error:") && said.contains("postgresql"), "{said}");
    let said = world.fails(3, &["migrate"]).await.stderr;
    assert!(said.contains("postgresql at") && said.contains("hint:"), "{said}");

    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    let address = address_of(&mut running).await;
    until("it says that it waits", async || {
        let (code, said) = get(&address, "/readyz").await;
        code == 503 && said.contains("telemetry-history is not ready") && said.contains("postgresql")
    })
    .await;
    assert_eq!(get(&address, "/healthz").await.0, 200);
    postgres.restart().await.unwrap();
    world.verified().await;
    assert_eq!(stop(running).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_down_at_the_start_is_waited_for() {
    let mut kafka = KafkaServer::start().await.unwrap();
    let world = World::on_kafka(&kafka, "kafka-down").await;
    world.simulate(EVENTS, 1).await;
    kafka.stop().await.unwrap();
    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    let said = world.fails(3, &["run", "--fail-fast"]).await.stderr;
    assert!(said.contains(&format!("kafka at {} does not answer", kafka.brokers())), "{said}");
    running.line_with("waiting for it (--fail-fast would stop)", LIMIT).await.unwrap();
    kafka.restart().await.unwrap();
    running.line_with("/readyz", LIMIT).await.unwrap();
    world.verified().await;
    assert_eq!(stop(running).await.0, Some(0));
}

/// For longer than its session with the controller, so that for a moment the cluster has no broker: librdkafka then forgets the
/// one that it knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stood_still_is_found_again() {
    let options = ["broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500"];
    let kafka = KafkaServer::start_with(&options).await.unwrap();
    let world = World::on_kafka(&kafka, "kafka-still").await;
    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    running.line_with("/readyz", LIMIT).await.unwrap();
    for _ in 0..3 {
        kafka.pause().unwrap();
        tokio::time::sleep(Duration::from_secs(7)).await;
        kafka.resume().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.simulate(EVENTS, 1).await;
    world.verified().await;
    assert_eq!(stop(running).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_evict_is_refused() {
    let redis = RedisServer::start_with(&["maxmemory-policy allkeys-lru"]).await.unwrap();
    let world = World::new("evict").await.on_redis(&redis);
    world.simulate(EVENTS, 1).await;
    for args in [&["run", "--once"][..], &["run", "--fail-fast"]] {
        let said = world.fails(1, args).await.stderr;
        for part in ["maxmemory-policy", "allkeys-lru", "noeviction"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(
        progress(&world, "unit-status").await.values().all(|next| *next == 0),
        "written to a Redis that forgets"
    );
    let mut connection = redis_connection(&redis.url()).await.unwrap();
    let policy = ["SET", "maxmemory-policy", "noeviction"];
    let _: () = redis::cmd("CONFIG").arg(&policy).query_async(&mut connection).await.unwrap();
    world.ok(&["run", "--once"]).await;
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_version_is_refused_until_it_fits() {
    let world = World::bare("schema").await;
    world.ok(&["topics", "apply"]).await;
    world.simulate(EVENTS, 1).await;
    let said = world.fails(1, &["run", "--once"]).await.stderr;
    assert!(said.contains("run `fleetlog migrate`") && said.contains("version 0 of"), "{said}");
    let missing = world.fails(1, &["migrate", "--dry-run"]).await.stdout;
    assert!(missing.contains("missing 0001_progress"), "{missing}");
    world.ok(&["migrate"]).await;
    let again = world.ok(&["migrate", "--dry-run"]).await;
    assert!(again.contains("0 missing"), "{again}");

    let mut postgres = world.postgres().await;
    let newer = "INSERT INTO fleetlog_migrations (version, name, checksum, flavour, applied_by)
                 VALUES (9999, 'future', gen_random_uuid(), 'plain', 'fleetlog 99')";
    postgres.execute(newer).await.unwrap();
    for args in [&["run", "--once"][..], &["run", "--fail-fast"]] {
        let said = world.fails(1, args).await.stderr;
        assert!(said.contains("9999") && said.contains("newer") && said.contains("upgrade"), "{said}");
    }
    assert_eq!(world.rows().await.values().sum::<i64>(), 0);
    postgres.execute("DELETE FROM fleetlog_migrations WHERE version = 9999").await.unwrap();
    world.ok(&["run", "--once"]).await;
    world.verified().await;
    assert_eq!(world.rows().await.values().sum::<i64>(), i64::try_from(EVENTS).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_database_is_waited_out() {
    let world = World::new("disk-full").await;
    let mut postgres = world.postgres().await;
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON telemetry FOR EACH STATEMENT EXECUTE FUNCTION full_disk()";
    postgres.execute(full).await.unwrap();
    world.simulate(EVENTS, 1).await;
    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    let address = address_of(&mut running).await;
    let told = running.line_with("No space left on device", LIMIT).await.unwrap();
    assert!(told.contains("telemetry-history") && told.contains("waiting until it passes"), "{told}");
    until("not ready", async || get(&address, "/readyz").await.0 == 503).await;
    assert_eq!(get(&address, "/healthz").await.0, 200);
    assert_eq!(world.rows().await["telemetry"], 0);
    postgres.execute("DROP TRIGGER full_disk ON telemetry").await.unwrap();
    let reports = world.verified().await;
    assert!(
        reports.values().all(|report| report["set_aside"] == 0),
        "a full disk is no reason for a dead letter"
    );
    assert_eq!(world.rows().await.values().sum::<i64>(), i64::try_from(EVENTS).unwrap());
    assert_eq!(world.json(&["dlq", "list"]).await, serde_json::json!([]));
    assert_eq!(stop(running).await.0, Some(0));
}
