//! The recount can fail: what a run must not leave behind is put there by hand, and counted.

use std::collections::BTreeMap;

use fleetlog_event::EventId;
use fleetlog_testkit::{delete_before, redis_connection};
use fleetlog_tests::{LIMIT, World, until};
use rand::{SeedableRng as _, rngs::StdRng};
use redis::AsyncCommands as _;

use crate::{
    fleet::fault_injection_binary,
    load::{Poisoner, Sent},
    outcome::Recount,
    recount::{Expected, recount},
    redriver::Redriver,
};

const EVENTS: u64 = 800;

/// A healthy run with poison in it.
async fn well() -> (World, Expected) {
    let world = World::new("recount").await;
    let sent = Sent::read(&world.simulate(EVENTS, 1).await).unwrap();
    let poisoner = Poisoner::new(world.kafka()).unwrap();
    poisoner.burst(&mut StdRng::seed_from_u64(1), 40).await.unwrap();
    world.ok(&["run", "--once"]).await;
    let poisons = poisoner.acknowledged();
    (world, Expected { sent, poisons, without: &[], redriven: false, tails_lost: false })
}

/// What is found beyond what was found before.
async fn found_more(world: &World, expected: &Expected, before: &mut Recount) -> Recount {
    let now = recount(world, expected).await.unwrap();
    let more = Recount {
        lost: now.lost - before.lost,
        doubled: now.doubled - before.doubled,
        differences: now.differences - before.differences,
        set_aside_wrong: now.set_aside_wrong - before.set_aside_wrong,
        dead_letters_wrong: now.dead_letters_wrong - before.dead_letters_wrong,
        ..Recount::default()
    };
    *before = now;
    more
}

fn counts(found: &Recount) -> [u64; 5] {
    [found.lost, found.doubled, found.differences, found.set_aside_wrong, found.dead_letters_wrong]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_counted() {
    let (world, expected) = well().await;
    let mut known = recount(&world, &expected).await.unwrap();
    assert_eq!(counts(&known), [0; 5], "{known:?}");
    assert!(known.compared > EVENTS && known.set_aside > 20 && known.duplicates > 3, "{known:?}");

    let mut postgres = world.postgres().await;
    for (statement, counted) in [
        ("DELETE FROM telemetry WHERE ctid = (SELECT min(ctid) FROM telemetry)", [1, 0, 0, 0, 0]),
        ("INSERT INTO unit_event SELECT * FROM unit_event ORDER BY log_partition, log_offset LIMIT 1", [0, 1, 0, 0, 0]),
        ("UPDATE task_event SET payload = '{}' WHERE event_type = 'Created' AND (log_partition, log_offset) =
          (SELECT log_partition, log_offset FROM task_event WHERE event_type = 'Created' LIMIT 1)", [0, 0, 1, 0, 0]),
        ("UPDATE t_app_task_ledger2 SET work_ms = -1 WHERE task_id =
          (SELECT min(task_id) FROM t_app_task_ledger2)", [0, 0, 1, 0, 0]),
        ("UPDATE t_app_task_ledger2 SET task_id = 'other' WHERE task_id =
          (SELECT max(task_id) FROM t_app_task_ledger2)", [0, 0, 2, 0, 0]),
        ("DELETE FROM task_milestone WHERE ctid = (SELECT min(ctid) FROM task_milestone)", [1, 0, 0, 0, 0]),
        ("DELETE FROM fleetlog_set_aside WHERE ctid = (SELECT min(ctid) FROM fleetlog_set_aside)", [0, 0, 0, 1, 0]),
    ] {
        sqlx::query(statement).execute(&mut postgres).await.unwrap();
        let found = found_more(&world, &expected, &mut known).await;
        assert_eq!(counts(&found), counted, "{statement}: {known:?}");
    }

    let mut redis = redis_connection(&world.redis_url).await.unwrap();
    let units: Vec<String> = redis.keys(format!("{}unit:*", world.prefix)).await.unwrap();
    let ledgers: Vec<String> = redis.keys(format!("{}*:set_aside", world.prefix)).await.unwrap();
    let _: () = redis.hset(&units[0], "connects", "4711").await.unwrap();
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 1, 0, 0], "{known:?}");
    let _: () = redis.del(&units[1]).await.unwrap();
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 1, 0, 0], "{known:?}");
    let _: () = redis.zadd(format!("{}online:501", world.prefix), "s501.unobody", 1).await.unwrap();
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 1, 0, 0], "{known:?}");
    let _: () = redis.hset(&ledgers[0], "4711", "{\"reason\":\"undecodable\"}").await.unwrap();
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 0, 1, 0], "{known:?}");

    // What was sent was another: three more acknowledged; one of them another event; all in the other order.
    let events = &expected.sent.events;
    let recounted = async |sent: Sent| {
        let found = recount(&world, &Expected { sent, ..expected.clone() }).await.unwrap();
        [found.lost - known.lost, found.differences - known.differences]
    };
    let more = Sent { acknowledged: EVENTS + 3, events: events.clone() };
    assert_eq!(recounted(more).await, [3, 0]);
    let other = [&events[1..], &[EventId::derived("nobody", 0)]].concat();
    assert_eq!(recounted(Sent { acknowledged: EVENTS, events: other }).await, [1, 1]);
    let reversed: Vec<EventId> = events.iter().rev().copied().collect();
    let [lost, out_of_order] = recounted(Sent { acknowledged: EVENTS, events: reversed }).await;
    assert!(lost == 0 && out_of_order > EVENTS / 2, "{out_of_order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_missing_or_too_many_is_counted() {
    let (world, expected) = well().await;
    let mut known = recount(&world, &expected).await.unwrap();
    assert_eq!(counts(&known), [0; 5], "{known:?}");
    // Somebody publishes a letter of an event that was taken: one that has a letter, with another offset.
    let settings = world.kafka();
    let topic = settings.topic("robot-dlq");
    let letters = world.records(&topic).await;
    let mut letter = letters[0].clone();
    for (name, value) in &mut letter.headers {
        if name == "fleetlog-dlq-offset" {
            *value = Some(bytes::Bytes::from_static(b"1000000"));
        }
    }
    let producer = fleetlog_producer::RawProducer::connect(
        &settings,
        &fleetlog_producer::ProducerSettings::default(),
        fleetlog_producer::ProducerMetrics::unregistered().unwrap(),
    )
    .unwrap();
    let forged = fleetlog_producer::RawRecord {
        topic: topic.clone(),
        partition: Some(letter.partition),
        key: letter.key,
        value: letter.value,
        timestamp: None,
        headers: letter.headers,
    };
    producer.send(forged).await.unwrap().await.unwrap();
    producer.close(LIMIT).await;
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 0, 0, 1], "{known:?}");

    // Retention takes the first letter of a partition away.
    let first = &letters[0];
    delete_before(&settings, &topic, &BTreeMap::from([(first.partition, first.offset + 1)])).await.unwrap();
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 0, 0, 1], "{known:?}");
}

/// Projectors rejected wrongly, and a fixed one was told to take all of it.
async fn redriven() -> (World, Expected, Redriver) {
    let world = World::new("redriven").await;
    let sent = Sent::read(&world.simulate(EVENTS, 1).await).unwrap();
    let poisoner = Poisoner::new(world.kafka()).unwrap();
    poisoner.burst(&mut StdRng::seed_from_u64(1), 40).await.unwrap();
    let wrong = world.fleetlog.clone().program(fault_injection_binary()).env("FLEETLOG_TEST_REJECTS", "all");
    wrong.run(&["run", "--once"], LIMIT).await.unwrap().success().unwrap();
    let fixed = world.fleetlog.spawn(&["run"]).unwrap();
    let mut redriver = Redriver::new(world.kafka()).unwrap();
    while redriver.send_all_open(&world).await.unwrap() {
        until("all commands", async || redriver.behind(&world).await.unwrap().is_empty()).await;
    }
    fixed.signal("TERM").unwrap();
    fixed.wait(LIMIT).await.unwrap();
    let poisons = poisoner.acknowledged();
    (world, Expected { sent, poisons, without: &[], redriven: true, tails_lost: false }, redriver)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_event_that_is_missing_doubled_or_out_of_order_is_counted() {
    let (world, expected, redriver) = redriven().await;
    let mut known = recount(&world, &expected).await.unwrap();
    assert_eq!(counts(&known), [0; 5], "{known:?}");
    assert!(known.redriven > EVENTS / 16 && known.rejected_again > 20, "{known:?}");

    let mut postgres = world.postgres().await;
    let redriven = |projection: &str, topic: &str| {
        format!(
            "(log_partition, log_offset) = (SELECT partition, log_offset FROM fleetlog_set_aside WHERE projection = \
             '{projection}' AND topic = '{}{topic}' AND status = 'redriven' ORDER BY 1, 2 LIMIT 1)",
            world.prefix
        )
    };
    let missing = format!("DELETE FROM telemetry WHERE {}", redriven("telemetry-history", "telemetry"));
    let doubled = format!(
        "INSERT INTO unit_event SELECT * FROM unit_event WHERE {}",
        redriven("event-history", "robot")
    );
    let reopened = "UPDATE fleetlog_set_aside SET status = 'open' WHERE ctid = (SELECT max(ctid) FROM \
                    fleetlog_set_aside WHERE projection = 'telemetry-history' AND status = 'redriven')";
    let untold = "UPDATE fleetlog_set_aside SET replays = replays + 1 WHERE ctid = (SELECT min(ctid) FROM \
                  fleetlog_set_aside WHERE projection = 'event-history' AND replays > 0)";
    for (statement, counted) in
        [(missing.as_str(), [1, 0, 0, 0, 0]), (&doubled, [0, 1, 0, 0, 0]), (reopened, [0, 0, 1, 1, 0])]
    {
        sqlx::query(statement).execute(&mut postgres).await.unwrap();
        let found = found_more(&world, &expected, &mut known).await;
        assert_eq!(counts(&found), counted, "{statement}: {known:?}");
    }

    // One more rejection than there are letters of; if that parked it, none lies on the parking topic either.
    sqlx::query(untold).execute(&mut postgres).await.unwrap();
    let found = found_more(&world, &expected, &mut known).await;
    assert!([[0, 0, 0, 0, 1], [0, 0, 0, 0, 2]].contains(&counts(&found)), "{known:?}");

    // Hot state as it would be had the event been folded last, and not in its place.
    let mut redis = redis_connection(&world.redis_url).await.unwrap();
    let (_, record) =
        redriver.letters_of("unit-consensus").find(|(_, record)| record.key_text().is_some()).unwrap();
    let home = format!("{}UnitConsensus@{}", world.prefix, record.key_text().unwrap());
    let _: () = redis.hset(&home, "recorded_at_ms", record.timestamp.0).await.unwrap();
    assert_eq!(counts(&found_more(&world, &expected, &mut known).await), [0, 0, 1, 0, 0], "{known:?}");
}
