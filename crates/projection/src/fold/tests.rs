use fleetlog_event::{
    Event, LogId, Reason,
    robot::{Connected, Decommissioned, RobotEvent},
    telemetry::TelemetryEvent,
};
use uuid::Uuid;

use super::*;
use crate::{
    Base, HotWrite, Projection,
    given::{MemoryLog, unit_meta},
};

/// Lists the sites of the events it took; will not take a `Decommissioned`, after having spoilt the state.
struct Sites;

impl FoldProjector for Sites {
    const ID: &'static str = "sites";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = Vec<String>;

    fn home(&self, key: &EntityKey) -> String {
        format!("sites:{key}")
    }
    fn apply(&self, state: &mut Vec<String>, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        state.push(event.event.event_type().short_name().to_owned());
        match &event.event {
            RobotEvent::Decommissioned(_) => Err(Reject::new(Reason::ImpossibleTransition, "not this one")),
            _ => Ok(()),
        }
    }
    fn writes(&self, _: &EntityKey, state: &Vec<String>, out: &mut Vec<HotWrite>) {
        out.push(HotWrite::field("count", state.len().to_string()));
        out.push(HotWrite::field("kind", "sites"));
    }
}

const SCOPE: LaneScope = LaneScope { topic: 0, log: LogId(Uuid::from_u128(7)), partition: 0, partitions: 1 };

fn connected() -> RobotEvent {
    Connected { meta: unit_meta("504", "1"), protocol: None }.into()
}

fn project(
    log: &MemoryLog,
    rulings: &Rulings,
    cache: &FoldCache<Vec<String>>,
) -> Projected<HotWrite, FoldPending<Vec<String>>> {
    let records: Vec<&Record> = log.records().iter().collect();
    Fold::new(Sites).project(&SCOPE, log, &records, rulings, cache)
}

/// What is written of one batch.
fn written(projected: Projected<HotWrite, FoldPending<Vec<String>>>) -> Vec<EntityChange<HotWrite>> {
    Fold::new(Sites).settle(&mut FoldCache::default(), projected.pending)
}

#[test]
fn batches_folded_ahead_are_written_once_with_the_last_state() {
    let (fold, log) = (Fold::new(Sites), connected_times(5));
    let (mut cache, mut touched) = (FoldCache::default(), Default::default());
    let records: Vec<&Record> = log.records().iter().collect();
    for batch in records.chunks(2) {
        let projected = fold.project(&SCOPE, &log, batch, &Rulings::default(), &cache);
        fold.fold_ahead(&mut cache, &mut touched, projected.pending);
    }
    assert_eq!(fold.touched_entities(&touched), 1);
    let changes = fold.changes(&mut cache, &mut touched, usize::MAX);
    assert_eq!((changes.len(), changes[0].version.next), (1, 5));
    assert_eq!(changes[0].writes[0], HotWrite::field("count", "5"));
}

fn connected_times(n: usize) -> MemoryLog {
    let mut log = MemoryLog::default();
    (0..n).for_each(|_| _ = log.append(connected()));
    log
}

#[test]
fn a_batch_writes_each_entity_once() {
    let projected = project(&connected_times(3), &Rulings::default(), &FoldCache::default());
    assert_eq!(projected.pending[0].2.len(), 3, "what the cache will learn is the state written");
    let entities = written(projected);
    assert_eq!(entities.len(), 1);
    let change = &entities[0];
    assert_eq!((change.home.as_str(), change.version.next), ("sites:s504.u1", 3));
    assert_eq!(change.writes[0], HotWrite::field("count", "3"));
}

#[test]
fn what_the_ledger_names_is_neither_taken_nor_judged_again() {
    let rulings = Rulings { named: [1].into(), ..Rulings::default() };
    let projected = project(&connected_times(3), &rulings, &FoldCache::default());
    assert!(projected.set_aside.is_empty());
    assert_eq!(written(projected)[0].writes[0], HotWrite::field("count", "2"));
}

#[test]
fn what_the_entitys_version_covers_is_not_even_decoded() {
    let mut log = MemoryLog::default();
    // Undecodable for this projection, and covered: nothing is said of it.
    let foreign = foreign_event();
    log.append_under(foreign.clone(), "s504.u1");
    log.append(connected());
    log.append_under(foreign, "s504.u1");
    let version = Version { log: SCOPE.log, partition: 0, next: 2, revision: 0 };
    let mut cache = FoldCache::default();
    cache.insert("s504.u1".into(), Known::read(version, Box::new(vec!["Connected".to_owned()]), 0));
    let projected = project(&log, &Rulings::default(), &cache);
    assert!(projected.pending.is_empty(), "the second event was applied before");
    let set_aside: Vec<i64> = projected.set_aside.iter().map(|entry| entry.record.offset).collect();
    assert_eq!(set_aside, [2], "only what is not covered is judged");
}

fn foreign_event() -> TelemetryEvent {
    let json = serde_json::json!({ "meta": unit_meta("504", "1") });
    TelemetryEvent::Telemetry(serde_json::from_value(json).expect("all fields have defaults"))
}

#[test]
fn what_the_store_refused_is_set_aside_with_what_it_said() {
    let rulings = Rulings { refused: [(1, "no NUL".to_owned())].into(), ..Rulings::default() };
    let projected = project(&connected_times(2), &rulings, &FoldCache::default());
    let entry = &projected.set_aside[0];
    assert_eq!((entry.reject.reason, entry.reject.detail.as_str()), (Reason::RefusedByStore, "no NUL"));
    assert_eq!(entry.event_type.as_deref(), Some(Connected::NAME));
}

#[test]
fn keys_partitions_and_foreign_events_are_judged() {
    let mut log = MemoryLog::default();
    log.append_under(connected(), "s504.u2");
    log.append(foreign_event());
    log.append(connected());
    let scope = LaneScope { partition: 5, partitions: 1000, ..SCOPE };
    let records: Vec<&Record> = log.records().iter().collect();
    let projected =
        Fold::new(Sites).project(&scope, &log, &records, &Rulings::default(), &FoldCache::default());
    let reasons: Vec<Reason> = projected.set_aside.iter().map(|entry| entry.reject.reason).collect();
    assert_eq!(reasons, [Reason::WrongKey, Reason::UnknownEventType, Reason::WrongPartition]);
    let told = &projected.set_aside[2].reject.detail;
    assert!(told.contains("of 1000, the record lies in 5") && told.contains("murmur2_random"), "{told}");
}

#[test]
fn a_record_without_key_or_value_is_set_aside() {
    let log = connected_times(2);
    let (mut keyless, mut odd) = (log.records()[0].clone(), log.records()[1].clone());
    keyless.key = None;
    odd.key = Some(bytes::Bytes::from_static(&[0xff]));
    let records = [&keyless, &odd];
    let projected =
        Fold::new(Sites).project(&SCOPE, &log, &records, &Rulings::default(), &FoldCache::default());
    let told: Vec<String> = projected.set_aside.iter().map(|entry| entry.reject.to_string()).collect();
    assert_eq!(told, ["no_key: the record has no key", "no_key: the record's key is no UTF-8"]);
}

#[test]
fn a_rejected_event_leaves_no_trace_wherever_it_comes() {
    let gone = || RobotEvent::from(Decommissioned { meta: unit_meta("504", "1"), reason: None });
    for rejected_at in [vec![0], vec![2], vec![0, 1], vec![1, 3]] {
        let mut log = MemoryLog::default();
        (0..4).for_each(|n| _ = log.append(if rejected_at.contains(&n) { gone() } else { connected() }));
        let projected = project(&log, &Rulings::default(), &FoldCache::default());
        let taken = 4 - rejected_at.len();
        assert_eq!(projected.set_aside.len(), rejected_at.len());
        let state = serde_json::to_vec(&vec!["Connected"; taken]).expect("texts");
        assert_eq!(written(projected)[0].state, state);
    }
    let mut log = MemoryLog::default();
    log.append(gone());
    assert!(project(&log, &Rulings::default(), &FoldCache::default()).pending.is_empty(), "nothing to write");
}

#[test]
fn a_state_of_another_log_or_form_is_not_gone_on_from() {
    let fold = Fold::new(Sites);
    let stored = |log, state: &[u8]| StoredState {
        version: Version { log, partition: 0, next: 1, revision: 0 },
        state: state.to_vec(),
    };
    let admit = |stored| fold.admit(&mut FoldCache::default(), &SCOPE, "s504.u1".into(), Some(stored));
    let other = admit(stored(LogId(Uuid::from_u128(8)), b"[]")).expect_err("another log");
    assert!(
        matches!(other, BadState::OtherLog { .. }) && other.to_string().contains("rebuild, or adopt"),
        "{other}"
    );
    let unreadable = admit(stored(SCOPE.log, b"{}")).expect_err("another form");
    assert!(unreadable.to_string().contains("raise its VERSION"), "{unreadable}");
    admit(stored(SCOPE.log, b"[]")).expect("a state of this log");
}

/// One batch of so many events of unit 1 after those before, and what is written of it.
fn goes_on(cache: &mut FoldCache<Vec<String>>, from: usize, events: usize) -> EntityChange<HotWrite> {
    let (fold, log) = (Fold::new(Sites), connected_times(from + events));
    let records: Vec<&Record> = log.records()[from..].iter().collect();
    let projected = fold.project(&SCOPE, &log, &records, &Rulings::default(), cache);
    fold.settle(cache, projected.pending).remove(0)
}

#[test]
fn a_write_says_what_the_store_has_already() {
    let mut cache = FoldCache::default();
    Fold::new(Sites)
        .admit(&mut cache, &SCOPE, "s504.u1".into(), None)
        .expect("none is a state to go on from");
    let is_new = goes_on(&mut cache, 0, 1);
    assert_eq!(is_new.base, Base::Nothing);
    // `kind` is as it was, `count` is not.
    assert_eq!(goes_on(&mut cache, 1, 2).base, Base::Written(vec![false, true]));
    assert_eq!(goes_on(&mut cache, 3, 1).base, Base::Written(vec![false, true]));
}

#[test]
fn of_what_somebody_else_wrote_everything_is_written_once() {
    let (fold, mut cache) = (Fold::new(Sites), FoldCache::default());
    let version = Version { log: SCOPE.log, partition: 0, next: 1, revision: 0 };
    let stored = StoredState { version, state: br#"["Connected"]"#.to_vec() };
    fold.admit(&mut cache, &SCOPE, "s504.u1".into(), Some(stored)).expect("a state of this log");
    assert_eq!(goes_on(&mut cache, 1, 1).base, Base::Unknown);
    assert_eq!(goes_on(&mut cache, 2, 1).base, Base::Written(vec![false, true]));
}

#[test]
fn batches_folded_one_onto_the_other_are_compared_with_what_was_written() {
    let (fold, mut cache, mut touched) = (Fold::new(Sites), FoldCache::default(), Default::default());
    drop(goes_on(&mut cache, 0, 1));
    let log = connected_times(4);
    for at in 1..4 {
        let records: Vec<&Record> = log.records()[at..=at].iter().collect();
        let projected = fold.project(&SCOPE, &log, &records, &Rulings::default(), &cache);
        fold.fold_ahead(&mut cache, &mut touched, projected.pending);
    }
    let change = fold.changes(&mut cache, &mut touched, usize::MAX).remove(0);
    assert_eq!(
        (&change.writes[0], change.base),
        (&HotWrite::field("count", "4"), Base::Written(vec![false, true]))
    );
}

#[test]
fn a_piece_takes_the_first_entities_that_fit_and_one_at_least() {
    let version = Version { log: SCOPE.log, partition: 0, next: 1, revision: 0 };
    let (fold, mut cache, mut touched) = (Fold::new(Sites), FoldCache::default(), Default::default());
    let pending = (0..10).map(|n| (EntityKey::from(format!("k{n}")), version, Box::default())).collect();
    let write_bytes = fold.fold_ahead(&mut cache, &mut touched, pending).write_bytes.unsigned_abs();
    let mut piece = |bytes_max| {
        let changes = fold.changes(&mut cache, &mut touched, bytes_max);
        changes.iter().map(|change| change.key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(piece(write_bytes * 4 / 10), ["k0", "k1", "k2", "k3"]);
    assert_eq!(piece(0), ["k4"]);
    assert_eq!(piece(usize::MAX), ["k5", "k6", "k7", "k8", "k9"]);
    assert!(piece(usize::MAX).is_empty());
}

#[test]
fn about_as_much_is_forgotten_as_asked_for_and_what_is_left_is_as_it_was() {
    let version = Version { log: SCOPE.log, partition: 0, next: 1, revision: 0 };
    for percent in [0, 1, 10, 50, 90, 100] {
        let (fold, mut cache) = (Fold::new(Sites), FoldCache::default());
        // Keys of one length, so that as large a part of the entities goes as of their bytes.
        let pending = (0..10_000).map(|n| (EntityKey::from(format!("k{n:04}")), version, Box::default()));
        let (pending, mut touched) = (pending.collect(), Default::default());
        let all = fold.fold_ahead(&mut cache, &mut touched, pending).cached_bytes.unsigned_abs();
        assert_eq!(fold.forget(&mut cache, all), 0, "nothing of it is written");
        drop(fold.changes(&mut cache, &mut touched, usize::MAX));
        let forgotten = fold.forget(&mut cache, all * percent / 100);
        let share = forgotten as f64 / all as f64;
        assert!((share - percent as f64 / 100.0).abs() < 0.02, "{share} of {percent} %");
        assert_eq!((10_000 - cache.len()) as f64 / 10_000.0, (share * 10_000.0).round() / 10_000.0);
    }
}
