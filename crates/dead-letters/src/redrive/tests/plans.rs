//! Which letters go, in which order, and why others stay.

use std::collections::BTreeMap;

use fleetlog_event::{LogId, Reason, TimestampMs};
use proptest::prelude::*;

use super::world::{PARTITIONS, TOPIC, World, request};
use crate::{
    Selector,
    redrive::{
        Candidate, DryRun, LaneRef, RedriveRequest, RequestError, Stays, Way, dry::spread, plan::in_order,
    },
    tests::letter,
};

fn candidate(lane: i32, offset: i64) -> Candidate {
    Candidate {
        letter: letter(offset, offset, "a", offset, "unknown_schema"),
        lane: LaneRef { group: "a".into(), topic: TOPIC.into(), partition: lane },
        log: LogId(uuid::Uuid::from_u128(9)),
        partitions: PARTITIONS,
        offset,
        recorded_at: TimestampMs(0),
        way: Way::InPlace,
    }
}

proptest! {
    /// Each lane's letters go in log order, whole; and no lane waits for another to be done.
    #[test]
    fn letters_go_in_log_order_lanes_side_by_side(
        lanes in prop::collection::vec(1..40_i64, 1..6),
        seed in any::<u64>(),
    ) {
        let mut all: Vec<Candidate> = lanes.iter().enumerate().flat_map(|(lane, count)| {
            (0..*count).map(move |offset| candidate(i32::try_from(lane).unwrap(), offset))
        }).collect();
        all.sort_by_key(|it| (it.offset.cast_unsigned() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15 | it.lane.partition.cast_unsigned() as u64));
        let ordered = in_order(all);
        prop_assert_eq!(ordered.len() as i64, lanes.iter().sum::<i64>());
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for (n, it) in ordered.iter().enumerate() {
            let expected = next.entry(it.lane.partition).or_default();
            prop_assert_eq!(it.offset, *expected);
            *expected += 1;
            let share = (n as f64 + 1.0) / ordered.len() as f64;
            let count = lanes[usize::try_from(it.lane.partition).unwrap()] as f64;
            prop_assert!((*expected as f64 / count - share).abs() <= 1.0 / count + lanes.len() as f64 / ordered.len() as f64 + 1e-9);
        }
    }

    #[test]
    fn a_sample_is_spread_and_never_larger_than_what_there_is(len in 0..200_usize, count in 0..50_usize) {
        let all: Vec<usize> = (0..len).collect();
        let sample = spread(&all, count);
        prop_assert_eq!(sample.len(), len.min(count));
        prop_assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(sample.windows(2).all(|pair| pair[1] - pair[0] <= len / sample.len() + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_is_counted_by_why() {
    let world = World::new();
    world.set_aside("a", 0, 1, Reason::UnknownSchema);
    world.set_aside("stranger", 0, 2, Reason::UnknownSchema);
    world.set_aside("a", 0, 3, Reason::UnknownSchema);
    world.set_aside("a", PARTITIONS, 4, Reason::UnknownSchema);
    world.set_aside("a", 1, 5, Reason::WrongKey);
    let gone = LaneRef { group: "a".into(), topic: TOPIC.into(), partition: 0 };
    world.inner().ledgers.remove(&(gone, 3));
    let plan = world.plan(&request()).await;
    let expected = [(Stays::ForeignGroup, 1), (Stays::OtherLog, 1), (Stays::NoEntry, 1)];
    assert_eq!(plan.stays, expected.into());
    assert_eq!((plan.matched, plan.go.len(), plan.takes_all), (5, 2, true));
    assert_eq!(plan.groups(), ["a", "b"], "what is emitted anew concerns every group over the topic");
    let rows: Vec<_> = plan.rows().into_iter().map(|row| (row.reason, row.way, row.letters)).collect();
    let expected = [("unknown_schema", Way::InPlace, 1), ("wrong_key", Way::Anew, 1)];
    for (reason, way, letters) in expected {
        assert!(rows.contains(&(reason.to_owned(), way, letters)), "{rows:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_go_than_asked_for_and_those_are_the_oldest() {
    let world = World::new();
    (0..10).for_each(|offset| world.set_aside("a", 0, offset, Reason::UnknownSchema));
    let request = RedriveRequest { selector: Selector { max: Some(4), ..Selector::default() }, ..request() };
    let plan = world.plan(&request).await;
    assert_eq!(plan.go.iter().map(|it| it.offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((plan.stays, plan.takes_all), ([(Stays::BeyondMax, 6)].into(), false));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tries_a_sample_and_changes_nothing() {
    let world = World::new();
    (0..100).for_each(|offset| world.set_aside("a", (offset % 3) as i32, offset, Reason::UnknownSchema));
    world.inner().rejects = (50..100).collect();
    let request = RedriveRequest { sample: 10, ..request() };
    let plan = world.plan(&request).await;
    let dry = DryRun::of(&plan, &request, &world, &world.operator()).await.unwrap();
    let first_and_last = [dry.first, dry.last].map(|letter| letter.unwrap().place.offset);
    assert_eq!(first_and_last, [0, 99]);
    assert_eq!((dry.tried.letters, dry.tried.taken + dry.tried.rejected["unknown_task"]), (10, 10));
    assert!((4..=6).contains(&dry.tried.taken), "{:?}", dry.tried);
    assert_eq!((world.commands(), world.inner().ops.len()), (0, 0));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (wrong, says) in [
        (RedriveRequest { canary: Some(0), ..request() }, "a canary of 0"),
        (RedriveRequest { rate_per_s: Some(0), ..request() }, "a rate of 0"),
        (RedriveRequest { batch: 0, ..request() }, "a batch of 0"),
        (RedriveRequest { replays_max: 0, ..request() }, "a replay maximum of 0"),
        (RedriveRequest { why: String::new(), ..request() }, "the reason has 0 bytes"),
    ] {
        let error: RequestError = wrong.check().unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
    }
}
