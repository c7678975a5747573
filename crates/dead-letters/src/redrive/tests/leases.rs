//! Leases: one job a group, and everybody sees the same.

use std::time::Duration;

use fleetlog_event::{
    Reason, TimestampMs,
    ops::{OpsEvent, RedriveEnd},
};
use fleetlog_projection::Fault;
use proptest::prelude::*;

use super::world::{World, request};
use crate::redrive::{Ended, Leases, Outcomes, RedriveError, RedriveRequest, Road, Stop, audit::Audit};

fn started(by: &str, now: i64, until: i64) -> OpsEvent {
    let request = RedriveRequest { action_id: by.into(), ..request() };
    Audit::new(&request, "a").started(1, TimestampMs(now), TimestampMs(until))
}

fn progressed(by: &str, now: i64, until: i64) -> OpsEvent {
    let request = RedriveRequest { action_id: by.into(), ..request() };
    Audit::new(&request, "a").progressed(TimestampMs(now), TimestampMs(until))
}

fn ended(by: &str, now: i64) -> OpsEvent {
    let request = RedriveRequest { action_id: by.into(), ..request() };
    Audit::new(&request, "a").ended(RedriveEnd::Done, Outcomes::default(), TimestampMs(now))
}

fn holder(events: &[OpsEvent], now: i64) -> Option<String> {
    let mut leases = Leases::default();
    events.iter().for_each(|event| leases.take(event));
    leases.holder("a", TimestampMs(now)).map(|lease| lease.action_id.clone())
}

#[test]
fn a_lease_is_the_first_ones_until_it_ends_or_expires() {
    let first = started("1", 0, 60);
    assert_eq!(holder(&[], 0), None);
    let both = [first.clone(), started("2", 5, 65)];
    assert_eq!(holder(&both, 6).as_deref(), Some("1"), "it came later and has nothing");
    assert_eq!(holder(&both, 61), None);
    let renewed = [first.clone(), progressed("1", 50, 110), started("2", 70, 130)];
    assert_eq!(holder(&renewed, 71).as_deref(), Some("1"));
    let of_another = [first.clone(), progressed("2", 50, 110), ended("2", 51)];
    assert_eq!(holder(&of_another, 52).as_deref(), Some("1"));
    assert_eq!(holder(&of_another, 61), None);
    let given_back = [first.clone(), ended("1", 7), started("2", 8, 68)];
    assert_eq!(holder(&given_back, 9).as_deref(), Some("2"));
    let expired = [first, started("2", 61, 121), progressed("1", 62, 122)];
    assert_eq!(holder(&expired, 63).as_deref(), Some("2"), "who lost it does not get it back by saying so");
}

proptest! {
    /// Whoever has the group keeps it as long as it says so in time, whatever others do.
    #[test]
    fn nobody_takes_a_group_that_is_kept(others in prop::collection::vec((0..4_u8, 0..100_i64), 0..30)) {
        let mut events = vec![started("me", 0, 60)];
        let mut now = 0;
        for (what, step) in others {
            now += step.min(15);
            events.push(progressed("me", now, now + 60));
            events.push(match what {
                0 | 1 => started("other", now, now + 60),
                2 => progressed("other", now, now + 600),
                _ => ended("other", now),
            });
            let holder = holder(&events, now + 1);
            prop_assert_eq!(holder.as_deref(), Some("me"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_operator_is_told_by_whom_and_until_when() {
    let world = World::new();
    world.set_aside("a", 0, 1, Reason::UnknownSchema);
    let theirs = started("theirs", 0, 60_000);
    world.inner().ops.push(theirs);
    let refused = world.run(&request()).await.unwrap_err();
    assert!(matches!(&refused, RedriveError::Held { group, .. } if group == "a"), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("anna@control-1 redrives group `a` (fixed), until 1970-01-01T00:01:00"), "{said}");
    assert_eq!(world.commands(), 0);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(world.run(&request()).await.unwrap().outcomes.taken, 1, "an expired lease is taken over");
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_group_can_send_no_more() {
    let world = World::new();
    (0..10).for_each(|offset| world.set_aside("a", 0, offset, Reason::UnknownSchema));
    let (mut first, mut second) = (world.operator(), world.operator());
    let request = RedriveRequest { batch: 2, ..request() };
    let done = world
        // Somebody whose clock is ahead, say.
        .run_by(&mut first, &request, &Stop::default(), move |_| second.seize("a"))
        .await
        .unwrap();
    assert!(matches!(&done.ended, Ended::Failed(trouble) if trouble.fault == Fault::Fenced), "{done:?}");
    assert_eq!((done.outcomes.taken, done.left, world.commands()), (2, 8, 2));
}

#[tokio::test(start_paused = true)]
async fn a_long_job_keeps_its_lease() {
    let world = World::new();
    (0..300).for_each(|offset| world.set_aside("a", 0, offset, Reason::UnknownSchema));
    let request = RedriveRequest { rate_per_s: Some(1), ..request() };
    let seen = world.clone();
    let done = world
        .run_by(&mut world.operator(), &request, &Stop::default(), move |_| {
            let now = TimestampMs(seen.operator().now().0);
            let mut leases = Leases::default();
            seen.inner().ops.iter().for_each(|event| leases.take(event));
            assert!(leases.holder("a", now).is_some(), "at {now:?}");
        })
        .await
        .unwrap();
    assert_eq!(done.outcomes.taken, 300);
    let now = world.operator().now();
    assert!(now.0 >= 299_000, "a rate is kept: {now:?}");
    let mut leases = Leases::default();
    world.inner().ops.iter().for_each(|event| leases.take(event));
    assert_eq!(leases.holder("a", now), None, "the group is free again at the end");
}
