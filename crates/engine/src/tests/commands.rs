//! What lanes do about their commands.

mod folding;

use bytes::Bytes;
use fleetlog_event::{EntityKey, Reason, Reject};
use fleetlog_projection::{Act, Command, EntryState, InboxRecord, Record};

use super::{
    fake::{FakeGroup, HangingSink, LOG, World, event, quick, until},
    lane,
};
use crate::End;
use folding::Folding;

fn command(act: Act) -> Command {
    Command { job: "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11".into(), log: LOG, act }
}

fn redrive(record: Record) -> Command {
    command(Act::Redrive { record, replays_max: 2 })
}

/// Sends all back that was set aside, before a run to the end, which takes it; how many that was.
async fn redriven_by_a_run_to_the_end(folding: &Folding) -> usize {
    let aside: Vec<i64> = folding.sink.lane(&Folding::lane()).ledger.keys().copied().collect();
    for offset in &aside {
        folding.inbox.send(0, &redrive(folding.record(*offset)));
    }
    assert_eq!(folding.run_once().await, End::CaughtUp);
    let ledger = folding.sink.lane(&Folding::lane()).ledger;
    assert!(ledger.values().all(|entry| entry.state == EntryState::Redriven) && ledger.len() == aside.len());
    folding.assert_folded();
    aside.len()
}

#[tokio::test]
async fn given_commands_that_lie_there_a_run_to_the_end_carries_them_out_first() {
    let mut folding = Folding::start();
    folding.group.send(200);
    folding.until_all().await;
    folding.halt().await;
    folding.projector.fix();
    redriven_by_a_run_to_the_end(&folding).await;
    // Nothing is left to wait for.
    assert_eq!(folding.run_once().await, End::CaughtUp);
}

#[tokio::test]
async fn given_an_inbox_made_anew_a_run_to_the_end_carries_out_what_lies_there_all_the_same() {
    let mut folding = Folding::start();
    folding.group.send(200);
    folding.until_all().await;
    let mut last = 0;
    for _ in 0..50 {
        last = folding.inbox.send(0, &command(Act::FoldAnew { key: "nobody".into() }));
    }
    folding.until_carried_out(last).await;
    folding.halt().await;
    folding.projector.fix();
    folding.inbox.make_anew();
    let aside = redriven_by_a_run_to_the_end(&folding).await;
    assert!(aside < 50, "fewer than progress counts");
}

#[tokio::test]
async fn given_a_fixed_projector_what_is_redriven_stands_in_its_place_and_counts_once() {
    let folding = Folding::start();
    folding.group.send(300);
    folding.until_all().await;
    folding.assert_folded();
    folding.projector.fix();
    let record = folding.record(109);
    // Twice in one go, and once more later.
    folding.inbox.send(0, &redrive(record.clone()));
    let at = folding.inbox.send(0, &redrive(record.clone()));
    folding.group.send(200);
    folding.until_carried_out(at).await;
    folding.until_all().await;
    folding.assert_folded();
    assert_eq!(folding.sink.lane(&Folding::lane()).ledger[&109].state, EntryState::Redriven);
    assert_eq!(folding.revision(&record), 1);
    let at = folding.inbox.send(0, &redrive(record.clone()));
    folding.until_carried_out(at).await;
    folding.assert_folded();
    assert_eq!(folding.revision(&record), 1, "nothing was changed");
    // The rest of them, and each once.
    let aside: Vec<i64> = folding.sink.lane(&Folding::lane()).ledger.keys().copied().collect();
    let mut at = 0;
    for offset in &aside {
        at = folding.inbox.send(0, &redrive(folding.record(*offset)));
    }
    folding.until_carried_out(at).await;
    folding.assert_folded();
    assert!(folding.sink.lane(&Folding::lane()).ledger.values().all(|entry| entry.state.is_taken()));
    assert!(folding.group.state().searches < 20, "{} searches", folding.group.state().searches);
    folding.stop().await;
}

#[tokio::test]
async fn given_a_store_that_loses_its_tail_redriven_events_count_once() {
    let folding = Folding::start();
    folding.group.send(200);
    folding.until_all().await;
    folding.projector.fix();
    let aside: Vec<i64> = folding.sink.lane(&Folding::lane()).ledger.keys().copied().collect();
    for (round, offset) in aside.iter().enumerate() {
        let at = folding.inbox.send(0, &redrive(folding.record(*offset)));
        folding.group.send(5);
        if round % 3 == 0 {
            folding.until_carried_out(at).await;
        }
        folding.sink.lose_tail(folding.sink.moment_before(round % 7));
    }
    let last = folding.inbox.send(0, &command(Act::FoldAnew { key: "nobody".into() }));
    folding.until_carried_out(last).await;
    folding.until_all().await;
    folding.assert_folded();
    let view = folding.sink.lane(&Folding::lane());
    // After the loss of its set-aside an event is simply taken.
    assert!(aside.iter().all(|at| view.ledger.get(at).is_none_or(|entry| entry.state.is_taken())));
    folding.stop().await;
}

#[tokio::test]
async fn given_a_projector_that_is_still_broken_an_event_is_rejected_again_until_it_is_parked() {
    let folding = Folding::start();
    folding.group.send(50);
    folding.until_all().await;
    let before = folding.sink.entities();
    for (replays, state) in [(1, EntryState::Open), (2, EntryState::Parked), (3, EntryState::Parked)] {
        let at = folding.inbox.send(0, &redrive(folding.record(10)));
        folding.until_carried_out(at).await;
        let entry = folding.sink.lane(&Folding::lane()).ledger[&10].clone();
        assert_eq!((entry.state, entry.replays), (state, replays));
    }
    assert_eq!(folding.sink.entities(), before);
    let letters = folding.letters.letters.lock().expect("not poisoned").clone();
    let again = &letters[letters.len() - 3..];
    assert_eq!(
        again.iter().map(|letter| letter.topic.as_str()).collect::<Vec<_>>(),
        ["robot-dlq", "robot-parking", "robot-parking"]
    );
    let header = |name: &str| {
        let found = again[2].headers.iter().filter(|(found, _)| *found == name);
        found.map(|(_, value)| value.clone().expect("a value")).collect::<Vec<_>>()
    };
    assert_eq!(header("fleetlog-dlq-replay-count"), [Bytes::from_static(b"3")]);
    assert_eq!(header("fleetlog-dlq-attempts"), [Bytes::from_static(b"4")]);
    // What is parked can be redriven all the same.
    folding.projector.fix();
    let at = folding.inbox.send(0, &redrive(folding.record(10)));
    folding.until_carried_out(at).await;
    folding.assert_folded();
    assert!(folding.sink.lane(&Folding::lane()).ledger[&10].state.is_taken());
    folding.stop().await;
}

#[tokio::test]
async fn given_an_entity_to_be_folded_anew_its_revision_grows_and_a_repair_needs_no_readable_state() {
    let folding = Folding::start();
    folding.group.send(100);
    folding.until_all().await;
    let record = folding.record(3);
    let key = EntityKey::from(record.key_text().expect("a key"));
    let at = folding.inbox.send(0, &command(Act::FoldAnew { key }));
    folding.until_carried_out(at).await;
    folding.assert_folded();
    assert_eq!(folding.revision(&record), 1);
    folding.stop().await;
}

#[tokio::test]
async fn given_nonsense_in_the_inbox_it_is_passed_over_and_an_event_of_no_entity_stays_aside() {
    let folding = Folding::start();
    folding.group.send_raw(0, None, b"nonsense");
    folding.group.send(20);
    folding.until_all().await;
    folding.inbox.send_raw(0, &InboxRecord { key: None, value: None, headers: Vec::new() });
    let other =
        Command { log: fleetlog_event::LogId(uuid::Uuid::from_u128(1)), ..redrive(folding.record(10)) };
    folding.inbox.send(0, &other);
    folding.inbox.send(0, &redrive(folding.record(3)));
    let at = folding.inbox.send(0, &redrive(folding.record(0)));
    folding.until_carried_out(at).await;
    let view = folding.sink.lane(&Folding::lane());
    assert_eq!((view.ledger[&0].state, view.ledger[&0].replays), (EntryState::Open, 1));
    assert!(!view.ledger.contains_key(&3) && view.ledger[&10].replays == 0);
    folding.assert_folded();
    folding.stop().await;
}

#[tokio::test]
async fn given_a_command_about_what_the_lane_has_not_taken_yet_it_waits() {
    let folding = Folding::start();
    folding.group.send(20);
    folding.until_all().await;
    let (key, value) = event(77);
    let early = Record {
        offset: 22,
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value)),
        ..folding.record(0)
    };
    let at = folding.inbox.send(0, &redrive(early));
    folding.group.send(2);
    folding.until_all().await;
    assert_eq!(folding.sink.lane(&Folding::lane()).progress.map(|progress| progress.inbox), Some(0));
    folding.group.send(1);
    folding.until_carried_out(at).await;
    folding.assert_folded();
    folding.stop().await;
}

#[tokio::test]
async fn given_a_map_the_row_and_the_closing_are_one_write_also_when_its_answer_is_lost() {
    let sink = HangingSink::new();
    let world =
        World::start_with(FakeGroup::new(1), crate::EngineConfig { store_timeout_ms: 30, ..quick() }, sink);
    world.group.send(10);
    world.group.send_raw(0, Some(b"s1.u1"), b"nonsense");
    world.group.send(10);
    until("all", || world.rows() == 20 && world.letters() == 1).await;
    // What lies there now can be read: as if the schema had come meanwhile.
    let (key, value) = event(3);
    let readable = Record {
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value)),
        ..world.group.records(0)[10].clone()
    };
    world.sink.hang.set(true);
    let at = world.inbox.send(0, &redrive(readable.clone()));
    until("under way", || world.sink.hang.met() > 2).await;
    world.sink.hang.set(false);
    world.until_carried_out(at).await;
    assert_eq!(world.rows(), 21);
    let at = world.inbox.send(0, &redrive(readable));
    world.until_carried_out(at).await;
    assert_eq!(world.rows(), 21);
    assert_eq!(world.sink.inner.lane(&lane(0)).ledger[&10].state, EntryState::Redriven);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_rows_that_the_store_refuses_they_are_rejected_again_and_the_others_taken() {
    let world = World::start(FakeGroup::new(1), quick());
    world.sink.inner.refuse([3, 7]);
    world.group.send(10);
    until("all", || world.rows() == 8 && world.letters() == 2).await;
    let records = world.group.records(0);
    world.sink.inner.refuse([]);
    let sink = &world.sink.inner;
    world.inbox.send(0, &redrive(records[3].clone()));
    let at = world.inbox.send(0, &redrive(records[7].clone()));
    world.until_carried_out(at).await;
    let view = sink.lane(&lane(0));
    assert_eq!((world.rows(), view.ledger[&3].replays, view.ledger[&7].replays), (8, 1, 1));
    assert_eq!(view.ledger[&3].reject.reason, Reason::RefusedByStore);
    assert_eq!(world.letters(), 4);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_lane_that_cannot_get_over_a_position_it_is_skipped_by_command() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(10);
    until("all", || world.rows() == 10).await;
    world.schemas_away.set(true);
    world.group.send(1);
    until("stuck", || world.schemas_away.met() > 3).await;
    let record = world.group.records(0)[10].clone();
    // One that is not next changes nothing.
    world.inbox.send(0, &command(Act::Skip { record: world.group.records(0)[5].clone(), why: "no".into() }));
    let at = world.inbox.send(0, &command(Act::Skip { record, why: "stuck".into() }));
    let sink = &world.sink.inner;
    world.until_carried_out(at).await;
    let view = sink.lane(&lane(0));
    assert_eq!(view.progress.map(|progress| progress.main), Some(11));
    assert_eq!(view.ledger[&10].reject, Reject::new(Reason::Skipped, "stuck"));
    world.schemas_away.set(false);
    world.group.send(5);
    until("goes on", || world.rows() == 15).await;
    assert_eq!((world.letters(), view.ledger.len()), (1, 1));
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_skip_behind_commands_that_wait_it_is_done_out_of_turn() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(10);
    until("all", || world.rows() == 10).await;
    world.schemas_away.set(true);
    world.group.send(5);
    until("stuck", || world.schemas_away.met() > 3).await;
    // The first waits for what lies behind the position; what comes before it is taken.
    let far = Record { offset: 14, ..world.group.records(0)[3].clone() };
    world.inbox.send(0, &redrive(far));
    let stuck = world.group.records(0)[12].clone();
    let last = world.inbox.send(0, &command(Act::Skip { record: stuck, why: "in the midst".into() }));
    let sink = &world.sink.inner;
    let progress = || sink.lane(&lane(0)).progress.expect("wrote");
    // What lies before the position needs schemas as well.
    until("asked again", || world.schemas_away.met() > 20).await;
    world.schemas_away.set(false);
    until("all is done", || progress().main == 15 && progress().inbox > last).await;
    assert_eq!(sink.lane(&lane(0)).ledger.keys().copied().collect::<Vec<_>>(), [12]);
    assert_eq!((world.rows(), world.letters()), (14, 1));
    // One that lies behind the end of the log is passed over, and holds up nobody.
    let beyond = Record { offset: 99, ..world.group.records(0)[3].clone() };
    let at = world.inbox.send(0, &command(Act::Skip { record: beyond, why: "nothing there".into() }));
    world.until_carried_out(at).await;
    world.group.send(100);
    until("also what comes to lie there", || progress().main == 115).await;
    assert_eq!((world.rows(), sink.lane(&lane(0)).ledger.len()), (114, 1));
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_redrive_and_its_closing_together_the_first_one_counts() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send_raw(0, Some(b"s1.u1"), b"nonsense");
    world.group.send_raw(0, Some(b"s1.u1"), b"nonsense");
    world.group.send(5);
    until("all", || world.rows() == 5 && world.letters() == 2).await;
    let readable = |n: usize| {
        let (key, value) = event(n as u64);
        let record = world.group.records(0)[n].clone();
        Record { key: Some(Bytes::from(key)), value: Some(Bytes::from(value)), ..record }
    };
    world.inbox.send(0, &redrive(readable(0)));
    world.inbox.send(0, &command(Act::EmittedAnew { offset: 0 }));
    world.inbox.send(0, &command(Act::EmittedAnew { offset: 1 }));
    let at = world.inbox.send(0, &redrive(readable(1)));
    let sink = &world.sink.inner;
    world.until_carried_out(at).await;
    let ledger = sink.lane(&lane(0)).ledger;
    assert_eq!((ledger[&0].state, ledger[&1].state), (EntryState::Redriven, EntryState::EmittedAnew));
    assert_eq!(world.rows(), 6);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_an_event_on_which_the_projector_panics_the_others_are_redriven() {
    let folding = Folding::start();
    folding.group.send(100);
    folding.until_all().await;
    folding.projector.fix();
    folding.projector.panic_at(54);
    let aside: Vec<i64> = folding.sink.lane(&Folding::lane()).ledger.keys().copied().collect();
    let mut at = 0;
    for offset in &aside {
        at = folding.inbox.send(0, &redrive(folding.record(*offset)));
    }
    folding.until_carried_out(at).await;
    folding.assert_folded();
    let ledger = folding.sink.lane(&Folding::lane()).ledger;
    let key = folding.record(54).key;
    for (offset, entry) in ledger {
        let of_same_entity = folding.record(offset).key == key;
        assert_eq!(entry.state.is_taken(), !of_same_entity || offset != 54 && entry.replays == 0, "{offset}");
        assert!(offset != 54 || entry.reject.reason == Reason::Panicked, "{:?}", entry.reject);
    }
    folding.stop().await;
}

#[tokio::test]
async fn given_a_log_that_is_cut_only_what_it_still_tells_is_folded_anew() {
    let folding = Folding::start();
    folding.group.send(300);
    folding.until_all().await;
    folding.projector.fix();
    // Retention takes the beginning, in which every unit had events.
    folding.group.remove_before(0, 150);
    let before = folding.sink.entities();
    folding.inbox.send(0, &redrive(folding.record(10)));
    let record = folding.record(208);
    let at = folding.inbox.send(0, &redrive(record.clone()));
    folding.until_carried_out(at).await;
    let ledger = folding.sink.lane(&Folding::lane()).ledger;
    assert_eq!((ledger[&10].reject.reason, ledger[&208].reject.reason), (Reason::NoPlace, Reason::NoPlace));
    assert_eq!(folding.sink.entities(), before, "nothing that only the store knows is lost");
    folding.stop().await;
}
