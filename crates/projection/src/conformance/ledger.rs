//! The ledger: what is told of it, and how its entries change.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::TimestampMs;

use super::{
    Harness, WriteOf,
    fixture::{LOG, Model, Owner, apply, assert_fenced, writes},
};
use crate::{Commit, EntryChange, EntryState, LedgerEntry, Sink, UnitOfWork};

/// The entries that a unit's set-asides make, by offset.
fn made<W>(unit: &UnitOfWork<W>) -> BTreeMap<i64, LedgerEntry> {
    let entry = |aside| LedgerEntry::new(aside, unit.made_at);
    unit.set_aside.iter().map(|aside| (aside.record.offset, entry(aside))).collect()
}

/// One change for each state that a command leaves behind.
fn changes(entries: &BTreeMap<i64, LedgerEntry>) -> Vec<EntryChange> {
    let states = EntryState::ALL.into_iter().cycle();
    let change = |((offset, entry), state): ((&i64, &LedgerEntry), EntryState)| EntryChange {
        offset: *offset,
        entry: LedgerEntry {
            state,
            replays: u32::from(state.is_open()),
            changed_at: Some(TimestampMs(1_700_000_000_777)),
            ..entry.clone()
        },
    };
    entries.iter().zip(states).map(change).collect()
}

/// A unit that changes entries and writes things, none of which is a set-aside.
fn command<H: Harness>(
    owner: &mut Owner<'_, H>,
    things: i64,
    value: i64,
    entries: Vec<EntryChange>,
) -> UnitOfWork<WriteOf<H>> {
    let made_at = TimestampMs(1_700_000_000_777);
    UnitOfWork { entries, made_at, ..owner.unit(&writes(things, value)) }
}

async fn assert_told<S: Sink>(sink: &S, unit: &UnitOfWork<S::Write>, expected: &BTreeMap<i64, LedgerEntry>) {
    let (first, last) = (expected.keys().next().copied().unwrap_or(0), unit.progress.main + 5);
    let asked: Vec<i64> = (first - 2..last).collect();
    let entries = sink.entries(&unit.lane, LOG, &asked).await.expect("the store answers");
    assert_eq!(&entries, expected, "entries");
    let open = |(offset, entry): (&i64, &LedgerEntry)| (!entry.state.is_taken()).then_some(*offset);
    let open: BTreeSet<i64> = expected.iter().filter_map(open).collect();
    let told = |range: std::ops::Range<i64>| async {
        sink.not_taken(&unit.lane, LOG, range).await.expect("the store answers")
    };
    assert_eq!(told(i64::MIN..i64::MAX).await, open, "all that were not taken");
    assert_eq!(told(first + 1..last).await, open.range(first + 1..).copied().collect(), "but the first");
    assert!(sink.entries(&unit.lane, LOG, &[]).await.expect("the store answers").is_empty());
}

/// Entries are told as they were made, open; what is not in the ledger is not told.
pub async fn entries_are_told<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let unit = apply(&mut owner, &sink, &mut model, &writes(2, 1)).await;
    assert_told(&sink, &unit, &BTreeMap::new()).await;
    let unit = apply(&mut owner, &sink, &mut model, &writes(1, 2).and_set_aside(5)).await;
    assert_told(&sink, &unit, &made(&unit)).await;
}

/// Entries change in the step that does the work, however much that is: a process that dies at any moment leaves all of it
/// or nothing; the same again is *already applied*.
pub async fn an_entry_closes_with_what_it_is_about<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let before = apply(&mut owner, &sink, &mut model, &writes(1, 1).and_set_aside(9)).await;
    let (made, changes) = (made(&before), changes(&made(&before)));
    let unit = command(&mut owner, 300, 2, changes.clone());
    assert!(harness.interrupt(&unit, 0).await, "something was left to do");
    assert_told(&sink, &before, &made).await;
    assert!(!harness.interrupt(&unit, 1).await, "it is one step");
    let after: BTreeMap<i64, LedgerEntry> =
        changes.into_iter().map(|change| (change.offset, change.entry)).collect();
    assert_told(&sink, &unit, &after).await;
    assert_eq!(sink.commit(&unit).await.expect("the store answers"), Commit::AlreadyApplied);
    let stored = sink.read(&owner.lane, &[]).await.expect("the store answers");
    assert_eq!((stored.link, stored.progress), (Some(unit.leaves), Some(unit.progress)));
    let last = if H::STORES_ENTITIES { harness.shown(&owner.home(299)).await } else { Some(2) };
    assert_eq!(last, Some(2));
}

/// A late write that sets the same event aside opens nothing again, and one that is fenced changes no entry.
pub async fn what_is_closed_stays_closed<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let before = apply(&mut owner, &sink, &mut model, &writes(1, 1).and_set_aside(1)).await;
    let (offset, entry) = made(&before).into_iter().next().expect("one");
    let closed = entry.clone().closed(EntryState::Redriven, TimestampMs(1_700_000_000_777));
    let unit = command(&mut owner, 1, 2, vec![EntryChange { offset, entry: closed.clone() }]);
    let mut other = owner.takes_over(&sink, 2).await;
    let zombie = command(&mut other, 1, 3, vec![EntryChange { offset, entry }]);
    assert_eq!(sink.commit(&unit).await.expect("the commit succeeds"), Commit::Applied);
    owner.chain.written(unit.leaves);
    owner.main = unit.progress.main;
    assert_fenced(&sink, &zombie, "who did not see it closed").await;
    let mut late = owner.unit(&writes(1, 4));
    late.set_aside.clone_from(&before.set_aside);
    assert_eq!(sink.commit(&late).await.expect("the commit succeeds"), Commit::Applied);
    assert_told(&sink, &late, &BTreeMap::from([(offset, closed)])).await;
}
