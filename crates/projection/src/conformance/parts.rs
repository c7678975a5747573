//! Commits that were cut short: what a reader sees meanwhile, and who completes or replaces them.
//!
//! Every check here needs [`Harness::interrupt`].

use super::{
    Harness, WriteOf,
    fixture::{Model, Owner, Plan, apply, assert_fenced, writes},
};
use crate::{Commit, Sink, UnitOfWork};

/// More things than any store takes in one step, so that commits have several.
const THINGS: i64 = 700;

/// An owner with one unit taken, and a second one that changes the same things and sets events aside.
struct Cut<'h, H: Harness> {
    owner: Owner<'h, H>,
    sink: H::Sink,
    before: Model,
    unit: UnitOfWork<WriteOf<H>>,
}

async fn cut<H: Harness>(harness: &H) -> Cut<'_, H> {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut before = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut before, &writes(THINGS, 1)).await;
    let unit = owner.unit(&writes(THINGS, 2).and_set_aside(3));
    Cut { owner, sink, before, unit }
}

/// Each entity is whole: state, version and what readers see are of one unit, the earlier or the later.
async fn assert_nothing_is_torn<H: Harness>(
    harness: &H,
    sink: &H::Sink,
    unit: &UnitOfWork<WriteOf<H>>,
) -> usize {
    let homes: Vec<String> = unit.entities.iter().map(|change| change.home.clone()).collect();
    let stored = sink.read(&unit.lane, &homes).await.expect("the store answers");
    let mut written = 0;
    for (change, state) in unit.entities.iter().zip(&stored.states) {
        let state = state.as_ref().unwrap_or_else(|| panic!("`{}` has no state", change.home));
        let shown = harness.shown(&change.home).await;
        assert_eq!(
            shown.map(|value| value.to_string().into_bytes()),
            Some(state.state.clone()),
            "`{}` shows another state than its own",
            change.home
        );
        let is_new = state.state == change.state;
        assert_eq!(is_new, state.version == change.version, "`{}` has another state's version", change.home);
        written += usize::from(is_new);
    }
    written
}

/// A commit cut short after any of its steps, and then after all of them (a lost reply), is completed by its retry
/// on another connection: everything is there once. Until then no entity is torn, progress has not moved, rows are
/// there or not but never twice. Stores whose commit is one step hold nothing of it.
pub async fn an_interrupted_commit_is_completed_by_its_retry<H: Harness>(harness: &H) {
    let mut steps = 0;
    loop {
        let Cut { mut owner, unit, before, .. } = cut(harness).await;
        let cut_short = harness.interrupt(&unit, steps).await;
        let sink = harness.open().await;
        let progress = sink.read(&owner.lane, &[]).await.expect("the store answers").progress;
        if cut_short {
            assert_eq!(
                progress.map(|p| p.main),
                Some(owner.main),
                "progress moves with the last step, after {steps}"
            );
        }
        if steps == 0 {
            before.assert_held(harness, &sink).await;
        }
        assert_nothing_is_torn(harness, &sink, &unit).await;
        let expected = if cut_short { Commit::Applied } else { Commit::AlreadyApplied };
        assert_eq!(sink.commit(&unit).await.expect("the retry succeeds"), expected, "after {steps} steps");
        let mut model = before;
        model.take(&unit);
        owner.written(&unit);
        model.assert_held(harness, &sink).await;
        apply(&mut owner, &sink, &mut model, &writes(2, 3)).await;
        model.assert_held(harness, &sink).await;
        if !cut_short {
            return;
        }
        steps += 1;
    }
}

/// Set-asides are entered before the entities they concern: whenever a new entity is seen, all of the unit's ledger
/// entries are there, and `named` tells a newcomer of them.
pub async fn set_asides_come_before_what_they_concern<H: Harness>(harness: &H) {
    let mut steps = 0;
    loop {
        let Cut { unit, owner, .. } = cut(harness).await;
        let cut_short = harness.interrupt(&unit, steps).await;
        let sink = harness.open().await;
        let written = assert_nothing_is_torn(harness, &sink, &unit).await;
        let expected: Vec<i64> = unit.set_aside.iter().map(|entry| entry.record.offset).collect();
        let entered: Vec<i64> = harness.ledger(&owner.lane).await.into_keys().collect();
        assert!(entered.is_empty() || entered == expected, "the set-asides of a commit are entered together");
        assert!(written == 0 || entered == expected, "{written} entities were written before the set-asides");
        let mut named = sink.read(&owner.lane, &[]).await.expect("the store answers").named;
        named.sort_unstable();
        let above_progress = if cut_short { entered } else { Vec::new() };
        assert_eq!(named, above_progress, "named: entries at or above progress, after {steps} steps");
        if !cut_short {
            return;
        }
        steps += 1;
    }
}

/// A newcomer with other code takes over in the middle of a commit: it follows the link it read, does the work its
/// own way, and the first owner's retry is fenced at whatever step it stands.
pub async fn another_owner_replaces_an_interrupted_commit<H: Harness>(harness: &H) {
    let mut steps = 0;
    loop {
        let Cut { owner, unit, before, .. } = cut(harness).await;
        let cut_short = harness.interrupt(&unit, steps).await;
        if !cut_short {
            return;
        }
        let sink = harness.open().await;
        let mut newcomer = owner.takes_over(&sink, 2).await;
        assert_eq!(newcomer.main, owner.main, "progress did not move");
        // The newcomer sets the same events aside (they are named) and decides otherwise about the rest.
        let theirs = newcomer.unit(&Plan { things: THINGS, value: 77, set_aside: 3 });
        assert_eq!(
            sink.commit(&theirs).await.expect("the commit succeeds"),
            Commit::Applied,
            "after {steps} steps"
        );
        let mut model = before;
        model.take(&theirs);
        assert_fenced(&sink, &unit, &format!("the first owner's retry after {steps} steps")).await;
        model.assert_held(harness, &sink).await;
        steps += 1;
    }
}

/// An owner's retry is fenced if it comes back to a commit that a newcomer merely began: the newcomer's part of the
/// chain is none of its own.
pub async fn two_interrupted_commits_do_not_mix<H: Harness>(harness: &H) {
    let Cut { owner, unit, before, sink } = cut(harness).await;
    if !harness.interrupt(&unit, 1).await {
        // One step is the whole commit: then there is nothing that could mix, but the first is stored.
        let mut model = before;
        model.take(&unit);
        model.assert_held(harness, &sink).await;
        return;
    }
    let mut newcomer = owner.takes_over(&sink, 2).await;
    let theirs = newcomer.unit(&Plan { things: THINGS, value: 77, set_aside: 3 });
    assert!(harness.interrupt(&theirs, 1).await, "the newcomer's commit has several steps too");
    assert_fenced(&sink, &unit, "the first owner's retry").await;
    assert_eq!(sink.commit(&theirs).await.expect("the retry succeeds"), Commit::Applied);
    let mut model = before;
    model.take(&theirs);
    model.assert_held(harness, &sink).await;
}
