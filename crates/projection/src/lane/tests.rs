use std::collections::BTreeSet;

use bytes::Bytes;
use fleetlog_event::{EntityKey, Reason, Reject};
use uuid::Uuid;

use super::*;
use crate::{Base, Version};

const SPAN: i64 = 5;

fn lane() -> LaneId {
    LaneId { projection: "p".into(), version: 1, topic: "t".into(), partition: 0 }
}

fn log(id: u128, low: i64, high: i64) -> LogNow {
    LogNow {
        scope: LaneScope { topic: 0, log: LogId(Uuid::from_u128(id)), partition: 0, partitions: 1 },
        low,
        high,
    }
}

fn record(offset: i64) -> Record {
    Record {
        offset,
        timestamp: TimestampMs(1),
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(&offset.to_le_bytes())),
        headers: crate::Headers::default(),
    }
}

fn id(record: &Record) -> Option<EventId> {
    let bytes: [u8; 8] = record.value.as_deref()?.try_into().ok()?;
    Some(EventId(Uuid::from_u128(u128::from(u64::from_le_bytes(bytes)))))
}

fn batch(begin: i64, offsets: std::ops::Range<i64>, next: i64) -> Batch {
    Batch { begin, records: offsets.map(record).collect(), next }
}

fn at(main: i64, last: Option<Record>) -> Stored {
    let last = last.map(|r| LastRecord { offset: r.offset, hash: r.hash() });
    let progress = Progress { log: LogId(Uuid::from_u128(1)), main, inbox: 0, last };
    Stored { progress: Some(progress), ..Stored::default() }
}

fn start(stored: &Stored, log: LogNow) -> Result<LaneCore, LogLost> {
    LaneCore::start(lane(), stored, &log, SPAN, 7)
}

fn take(core: &mut LaneCore, batch: Batch) -> Taken {
    match core.admit(batch, id) {
        Ok(Admission::Take(taken)) => taken,
        other => panic!("expected to be taken: {other:?}"),
    }
}

fn write(core: &mut LaneCore) -> UnitOfWork<()> {
    let unit = core.unit(Writes::default(), TimestampMs(0));
    core.written(unit.leaves, unit.progress);
    unit
}

#[test]
fn given_no_progress_a_lane_begins_where_the_log_does() {
    let core = start(&Stored::default(), log(1, 30, 90)).expect("starts");
    assert_eq!((core.cursor(), core.progress().main, core.progress().inbox), (30, 30, 0));
    assert!(!core.moved_silently());
}

#[test]
fn given_progress_reading_begins_as_far_below_it_as_duplicates_reach() {
    assert_eq!(start(&at(50, Some(record(49))), log(1, 0, 90)).expect("starts").cursor(), 45);
    assert_eq!(
        start(&at(50, Some(record(40))), log(1, 0, 90)).expect("starts").cursor(),
        40,
        "to check the last"
    );
    assert_eq!(start(&at(50, Some(record(49))), log(1, 48, 90)).expect("starts").cursor(), 48, "no further");
    assert_eq!(
        start(&at(50, Some(record(40))), log(1, 47, 90)).expect("starts").cursor(),
        47,
        "cannot be checked"
    );
}

#[test]
fn given_lost_history_a_lane_does_not_start_and_names_the_ways_out() {
    for (stored, now, text) in [
        (at(50, None), log(2, 0, 90), "deleted and made again"),
        (
            at(50, None),
            log(1, 51, 90),
            "retention overtook it: progress is 50, the log begins at 51, 1 offsets are lost",
        ),
        (at(50, None), log(1, 0, 49), "lies past the log's end 49"),
    ] {
        let error = start(&stored, now).expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
        assert!(error.contains("rebuild `p`") && error.contains("adopt"), "{error}");
    }
    assert!(start(&at(50, None), log(1, 50, 50)).is_ok(), "an empty log that ends at progress");
}

#[test]
fn given_another_record_where_the_last_one_was_the_log_was_replaced() {
    let mut core =
        start(&at(50, Some(Record { timestamp: TimestampMs(2), ..record(49) })), log(1, 0, 90)).expect("ok");
    let error = core.admit(batch(45, 45..51, 51), id).expect_err("another hash");
    assert_eq!(error, LogLost::LastRecordDiffers { lane: lane(), offset: 49 });

    let mut core = start(&at(50, Some(record(49))), log(1, 0, 90)).expect("starts");
    take(&mut core, batch(45, 45..48, 48));
    let error = core.admit(batch(48, 50..51, 51), id).expect_err("gone");
    assert_eq!(error, LogLost::LastRecordMissing { lane: lane(), offset: 49 });
}

#[test]
fn a_batch_is_taken_only_if_its_reading_began_at_the_cursor() {
    let mut core = start(&at(50, Some(record(49))), log(1, 0, 90)).expect("starts");
    assert!(matches!(core.admit(batch(44, 45..51, 51), id), Ok(Admission::Stale)));
    assert!(matches!(core.admit(batch(46, 46..51, 51), id), Ok(Admission::Stale)));
    assert_eq!(core.cursor(), 45, "a stale batch moves nothing");
    let taken = take(&mut core, batch(45, 45..53, 53));
    assert_eq!((taken.refilled, taken.records.len(), core.cursor()), (5, 3, 53));
}

#[test]
fn records_below_progress_fill_the_window_and_are_not_taken_again() {
    let mut core = start(&at(50, Some(record(49))), log(1, 0, 90)).expect("starts");
    let resent = Record { offset: 51, ..record(47) };
    let mut read = batch(45, 45..51, 52);
    read.records.push(resent);
    let taken = take(&mut core, read);
    let fresh: Vec<i64> = taken.fresh().iter().map(|r| r.offset).collect();
    assert_eq!(fresh, [50], "51 is 47 again");
}

#[test]
fn one_write_covers_all_that_was_admitted_and_progress_moves_when_it_is_taken() {
    let mut core = start(&Stored::default(), log(1, 0, 90)).expect("starts");
    take(&mut core, batch(0, 0..2, 2));
    take(&mut core, batch(2, 2..4, 5));
    let unit = core.unit::<()>(Writes::default(), TimestampMs(0));
    assert_eq!((unit.follows, unit.progress.main), (None, 5));
    assert_eq!(unit.progress.last.map(|last| last.offset), Some(3));
    assert_eq!(core.progress().main, 0, "not before it is written");
    core.written(unit.leaves, unit.progress);
    assert_eq!(core.progress().main, 5);
    assert!(core.owns(Some(unit.leaves)) && !core.owns(None));
}

#[test]
fn a_batch_admitted_while_a_write_is_under_way_belongs_to_the_next_one() {
    let mut core = start(&Stored::default(), log(1, 0, 90)).expect("starts");
    take(&mut core, batch(0, 0..2, 2));
    let first = core.unit::<()>(Writes::default(), TimestampMs(0));
    take(&mut core, batch(2, 2..4, 4));
    assert_eq!(first.progress.main, 2);
    core.written(first.leaves, first.progress);
    assert!(core.moved_silently());
    let second = write(&mut core);
    assert_eq!((second.follows, second.progress.main), (Some(first.leaves), 4));
}

#[test]
fn duplicates_are_found_before_the_earlier_one_is_written_and_a_new_start_has_forgotten_them() {
    let again = || {
        let mut read = batch(2, 3..3, 4);
        read.records.push(Record { offset: 3, ..record(1) });
        read
    };
    let mut core = start(&Stored::default(), log(1, 0, 90)).expect("starts");
    take(&mut core, batch(0, 0..2, 2));
    assert!(take(&mut core, again()).fresh().is_empty(), "1 again");

    let mut core = start(&Stored::default(), log(1, 0, 90)).expect("starts");
    assert_eq!(take(&mut core, batch(0, 0..2, 2)).fresh().len(), 2, "nothing of it was written");
}

#[test]
fn an_empty_move_takes_progress_over_markers_and_keeps_the_last_record() {
    let mut core = start(&at(50, Some(record(49))), log(1, 0, 90)).expect("starts");
    take(&mut core, batch(45, 45..50, 50));
    assert!(!core.moved_silently());
    take(&mut core, batch(50, 50..50, 53));
    assert!(core.moved_silently());
    let unit = write(&mut core);
    assert_eq!((unit.progress.main, unit.progress.last.map(|last| last.offset)), (53, Some(49)));
    assert!(!core.moved_silently());
}

#[test]
fn what_the_ledger_names_is_forgotten_once_progress_is_past_it() {
    let mut core = start(&Stored { named: vec![50, 60], ..at(50, None) }, log(1, 50, 90)).expect("starts");
    assert_eq!(core.rulings().named, BTreeSet::from([50, 60]));
    take(&mut core, batch(50, 50..55, 55));
    write(&mut core);
    assert_eq!(core.rulings().named, BTreeSet::from([60]));
}

#[test]
fn a_round_sets_aside_with_its_first_piece_and_moves_progress_with_its_last() {
    let aside = |offset| SetAside {
        record: record(offset),
        reject: Reject::new(Reason::OutOfRange, ""),
        event_type: None,
    };
    let states = || {
        let version = Version { log: LogId(Uuid::from_u128(1)), partition: 0, next: 9, revision: 0 };
        let (key, home, base) = (EntityKey::from("k"), "k".to_owned(), Base::Unknown);
        vec![EntityChange::<()> { key, home, version, state: Vec::new(), writes: Vec::new(), base }]
    };
    let mut core = start(&Stored::default(), log(1, 0, 90)).expect("starts");
    take(&mut core, batch(0, 0..4, 4));
    let (reach, mut set_aside, mut beyond) = (core.reach(), vec![aside(1)], vec![aside(5)]);
    take(&mut core, batch(4, 4..8, 8));
    let mut piece = |entities, is_last, beyond: &mut Vec<SetAside>| {
        let due = Due { reach, is_last, rows: &mut Vec::new(), set_aside: &mut set_aside, beyond };
        let unit = core.piece(entities, due, TimestampMs(0));
        core.written(unit.leaves, unit.progress);
        let asides: Vec<i64> = unit.set_aside.iter().map(|aside| aside.record.offset).collect();
        (unit.progress.main, asides)
    };
    assert_eq!(piece(states(), false, &mut beyond), (0, vec![1, 5]), "states may cover 5");
    beyond.push(aside(6));
    assert_eq!(piece(Vec::new(), false, &mut beyond), (0, vec![]), "nothing covers 6");
    assert_eq!(piece(states(), true, &mut beyond), (4, vec![6]), "as far as the round, not further");
}
