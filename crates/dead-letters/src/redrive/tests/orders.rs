//! Single commands to lanes.

use std::{sync::Mutex, time::Duration};

use fleetlog_event::{EntityKey, LogId, Reason, TimestampMs, partition_of};
use fleetlog_projection::{Headers, Record, Version};

use super::world::{PARTITIONS, TOPIC, World};
use crate::{
    orders::{Commander, OrderError, RepairRequest, Repaired, SkipRequest},
    redrive::{LaneRef, Reader},
};

fn lane_of(group: &str, key: &EntityKey) -> LaneRef {
    let partition = partition_of(key.as_str().as_bytes(), PARTITIONS);
    LaneRef { group: group.into(), topic: TOPIC.into(), partition }
}

fn reader(group: &str, topic: &str) -> Reader {
    Reader { group: group.into(), topic: topic.into(), inbox: format!("{group}-robot-inbox") }
}

fn version(revision: u32) -> Version {
    Version { log: LogId(uuid::Uuid::from_u128(9)), partition: 0, next: 7, revision }
}

async fn repair(
    world: &World,
    requests: &[RepairRequest],
) -> (Result<Vec<Repaired>, OrderError>, Vec<String>) {
    let unmanned = Mutex::new(Vec::new());
    let tell = |group: &str| unmanned.lock().unwrap().push(group.to_owned());
    let patience = Duration::from_secs(2);
    let commander = Commander { lanes: world, orders: world, patience, job: "mend".into(), unmanned: &tell };
    let repaired = commander.repair(requests).await;
    (repaired, unmanned.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn entities_are_folded_anew_by_the_lanes_that_have_them_and_told_in_the_order_of_the_request() {
    let world = World::new();
    let keys: Vec<EntityKey> = (0..20).map(|unit| format!("s1.u{unit}").as_str().into()).collect();
    for key in keys.iter().step_by(2) {
        world.inner().versions.insert((lane_of("a", key), key.clone()), version(3));
    }
    let (repaired, unmanned) =
        repair(&world, &[RepairRequest { reader: reader("a", TOPIC), keys: keys.clone() }]).await;
    let repaired = repaired.unwrap();
    assert_eq!(repaired.iter().map(|row| &row.key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    for (n, row) in repaired.iter().enumerate() {
        let known = n % 2 == 0;
        let expected = (known.then(|| version(3)), known.then(|| version(4)));
        assert_eq!((row.before, row.after), expected, "{row:?}");
        assert!(row.is_well() && row.group == "a");
    }
    assert_eq!(unmanned, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_named_and_the_commands_stay() {
    let world = World::new();
    world.inner().members = 0;
    let request = RepairRequest { reader: reader("b", TOPIC), keys: vec!["s1.u1".into()] };
    let (repaired, unmanned) = repair(&world, std::slice::from_ref(&request)).await;
    let error = repaired.unwrap_err();
    assert!(matches!(&error, OrderError::Stalled { lanes, .. } if lanes[0].group == "b"), "{error}");
    assert!(error.to_string().starts_with("no answer from b p-robot/"), "{error}");
    assert_eq!((unmanned, world.commands()), (vec!["b".to_owned()], 1));

    let missing = RepairRequest { reader: reader("b", "gone"), ..request };
    let error = repair(&world, &[missing]).await.0.unwrap_err();
    assert_eq!(error.to_string(), "the cluster has no topic gone");
    assert_eq!(world.commands(), 1, "nothing more was sent");
}

#[tokio::test(start_paused = true)]
async fn a_position_is_skipped_where_the_lane_stands_and_nowhere_else() {
    let world = World::new();
    let lane = LaneRef { group: "a".into(), topic: TOPIC.into(), partition: 1 };
    let commander = Commander {
        lanes: &world,
        orders: &world,
        patience: Duration::from_secs(2),
        job: "pass".into(),
        unmanned: &|_| {},
    };
    let main = world.inner().main;
    for (offset, is_skipped) in [(main - 1, false), (main, true)] {
        let headers = Headers::default();
        let record = Record { offset, timestamp: TimestampMs(7), key: None, value: None, headers };
        let request = SkipRequest {
            lane: lane.clone(),
            inbox: "a-robot-inbox".into(),
            log: LogId(uuid::Uuid::from_u128(9)),
            record,
            why: "it hangs".into(),
        };
        assert_eq!(commander.skip(request).await.unwrap(), is_skipped, "offset {offset}");
    }
    let entry = &world.inner().ledgers[&(lane, main)];
    assert_eq!((entry.reject.reason, entry.reject.detail.as_str()), (Reason::Skipped, "it hangs"));
}
