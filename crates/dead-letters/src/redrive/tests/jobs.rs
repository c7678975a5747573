//! Jobs: what came of letters, and runs after runs.

use fleetlog_event::{Reason, ops::OpsEvent};
use fleetlog_projection::EntryState;
use proptest::prelude::*;

use super::world::{TOPIC, World, request};
use crate::redrive::{Ended, Outcomes, RedriveRequest, Stays, Stop, Told};

fn with(count: i64) -> World {
    let world = World::new();
    (0..count).for_each(|offset| world.set_aside("a", (offset % 3) as i32, offset, Reason::UnknownSchema));
    world
}

#[tokio::test(start_paused = true)]
async fn all_are_taken_and_a_second_run_does_nothing() {
    let world = with(7);
    let done = world.run(&RedriveRequest { batch: 3, ..request() }).await.unwrap();
    assert!(matches!(done.ended, Ended::Done), "{done:?}");
    assert_eq!((done.outcomes, done.left), (Outcomes { taken: 7, ..Outcomes::default() }, 0));
    let named: usize = world
        .inner()
        .ops
        .iter()
        .filter_map(|event| match event {
            OpsEvent::DeadLettersRedriven(event) => Some(event.letters.len()),
            _ => None,
        })
        .sum();
    assert_eq!(named, 7, "each by name");
    let plan = world.plan(&request()).await;
    assert_eq!((plan.go.len(), &plan.stays), (0, &[(Stays::Redriven, 7)].into()));
    let commands = world.commands();
    assert_eq!(world.run(&request()).await.unwrap().outcomes, Outcomes::default());
    assert_eq!(world.commands(), commands);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_job_could_not_write_down_is_written_down() {
    let world = with(4);
    world.run(&request()).await.unwrap();
    world.inner().ops.clear();
    let done = world.run(&request()).await.unwrap();
    assert_eq!((done.written_down, world.commands()), (4, 4));
    assert_eq!(world.plan(&request()).await.unwritten.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_rejected_each_time_ends_parked() {
    let world = with(2);
    world.inner().rejects.insert(1);
    let first = world.run(&request()).await.unwrap();
    assert_eq!((first.outcomes.taken, first.outcomes.rejected), (1, 1));
    assert_eq!(first.rejected_for, [("unknown_task".to_owned(), 1)].into());
    assert_eq!(world.state("a", 1, 1), (EntryState::Open, 1));
    assert_eq!(world.run(&request()).await.unwrap().outcomes.rejected, 1);
    assert_eq!(world.run(&request()).await.unwrap().outcomes.parked, 1);
    assert_eq!(world.state("a", 1, 1), (EntryState::Parked, 3));
    let plan = world.plan(&request()).await;
    assert_eq!((plan.go.len(), plan.stays.get(&Stays::Parked)), (0, Some(&1)));
    world.inner().rejects.clear();
    let parked = RedriveRequest { parked: true, ..request() };
    assert_eq!(world.run(&parked).await.unwrap().outcomes.taken, 1, "asked for by name it goes once more");
}

#[tokio::test(start_paused = true)]
async fn a_canary_stops_the_others() {
    let world = with(100);
    world.inner().rejects = (0..100).filter(|offset| offset % 10 == 0).collect();
    let request = RedriveRequest { canary: Some(20), batch: 8, ..request() };
    let done = world.run(&request).await.unwrap();
    assert!(matches!(&done.ended, Ended::Canary { of: 20, taken: 18, .. }), "{done:?}");
    assert_eq!((world.commands(), done.left), (20, 80));
    world.inner().rejects.clear();
    let done = world.run(&request).await.unwrap();
    assert!(matches!(done.ended, Ended::Done), "{done:?}");
    assert_eq!(done.outcomes.taken, 82);
}

#[tokio::test(start_paused = true)]
async fn stopped_it_ends_after_the_batch_and_goes_on_when_run_again() {
    let world = with(10);
    let (stop, asked) = (Stop::default(), Stop::default());
    let asks = stop.clone();
    let request = RedriveRequest { batch: 4, ..request() };
    let done = world.run_by(&mut world.operator(), &request, &stop, move |_| asks.ask()).await.unwrap();
    assert!(matches!(done.ended, Ended::Stopped) && !asked.is_asked(), "{done:?}");
    assert_eq!((done.outcomes.taken, done.left), (4, 6));
    assert_eq!(world.run(&request).await.unwrap().outcomes.taken, 6);
    assert_eq!(world.commands(), 10, "nothing is sent twice");
}

#[tokio::test(start_paused = true)]
async fn commands_that_nobody_answers_are_waited_for_by_the_next_job_and_not_sent_again() {
    let world = with(5);
    world.inner().members = 0;
    let mut told = Vec::new();
    let done = world
        .run_by(&mut world.operator(), &request(), &Stop::default(), |it| {
            if let Told::NobodyRuns { group } = it {
                told.push(group.to_owned());
            }
        })
        .await
        .unwrap();
    assert_eq!(told, ["a"]);
    let Ended::Stalled { unmanned, is_earlier, .. } = &done.ended else { panic!("{done:?}") };
    assert_eq!((unmanned.as_slice(), *is_earlier, done.left), (&["a".to_owned()][..], false, 5));
    let still = world.run(&request()).await.unwrap();
    assert!(matches!(still.ended, Ended::Stalled { is_earlier: true, .. }), "{still:?}");
    assert_eq!(world.commands(), 5, "nothing new was sent");
    world.inner().members = 1;
    let done = world.run(&request()).await.unwrap();
    assert!(matches!(done.ended, Ended::Done), "{done:?}");
    assert_eq!((done.outcomes.taken, world.commands()), (5, 5), "taken by the commands of the first");
}

#[tokio::test(start_paused = true)]
async fn what_lies_wrongly_is_emitted_once_for_all_groups() {
    let world = World::new();
    for group in ["a", "b"] {
        world.set_aside(group, 0, 7, Reason::WrongKey);
        world.set_aside(group, 1, 13, Reason::WrongPartition);
    }
    let done = world.run(&request()).await.unwrap();
    assert_eq!((done.outcomes.taken, done.not_emitted.values().sum::<u64>()), (2, 2), "{done:?}");
    let emitted = world.inner().emitted.clone();
    assert_eq!(emitted.len(), 1, "once, for both groups");
    let record = &emitted[0];
    assert_eq!((record.topic.as_str(), record.key.as_deref()), (TOPIC, Some(&b"s1.u7"[..])));
    assert_eq!(record.timestamp.map(|time| time.0), Some(77), "when it was recorded");
    let names: Vec<String> = record.headers.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["ce_subject"], "none of a letter");
    assert_eq!(record.headers[0].1.as_deref(), Some(&b"s1.u7"[..]));
    for group in ["a", "b"] {
        assert_eq!(world.state(group, 0, 7), (EntryState::EmittedAnew, 0));
        assert_eq!(world.state(group, 1, 13), (EntryState::Open, 0));
    }
    world.run(&request()).await.unwrap();
    assert_eq!(world.inner().emitted.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_emitted_before_every_group_has_come_to_it_or_twice_after_a_kill() {
    let world = World::new();
    world.set_aside("a", 0, 7, Reason::WrongKey);
    world.inner().main = 7;
    let early = world.run(&request()).await.unwrap();
    assert_eq!((early.outcomes.answered(), world.inner().emitted.len()), (0, 0), "{early:?}");
    world.inner().main = 8;
    world.inner().members = 0;
    let killed = world.run(&request()).await.unwrap();
    assert!(matches!(killed.ended, Ended::Stalled { .. }), "{killed:?}");
    assert_eq!(world.inner().emitted.len(), 1, "it is on the log, and its entry is open still");
    world.inner().members = 1;
    let done = world.run(&request()).await.unwrap();
    assert_eq!((done.outcomes.taken, world.inner().emitted.len()), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However jobs are cut by batches, canaries and stops: in the end each letter was sent once, and taken.
    #[test]
    fn runs_add_up_to_one(
        letters in 1..40_i64,
        runs in prop::collection::vec((1..12_usize, prop::option::of(1..10_usize), prop::option::of(0..4_usize)), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = with(letters);
            for (batch, canary, stop_after) in runs {
                let (stop, request) = (Stop::default(), RedriveRequest { batch, canary, ..request() });
                let (asks, mut batches) = (stop.clone(), 0);
                let tell = move |told: Told<'_>| {
                    batches += usize::from(matches!(told, Told::Batch { .. }));
                    if stop_after.is_some_and(|after| batches > after) {
                        asks.ask();
                    }
                };
                let left = world.plan(&request).await.go.len() as u64;
                let done = world.run_by(&mut world.operator(), &request, &stop, tell).await.unwrap();
                assert_eq!(done.outcomes.taken + done.left, left);
            }
            world.run(&request()).await.unwrap();
            assert_eq!(world.commands() as i64, letters);
            assert_eq!(world.plan(&request()).await.stays, [(Stays::Redriven, letters.cast_unsigned())].into());
        });
    }
}
