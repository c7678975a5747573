//! What stores do to their writers: lose what they acknowledged, forget scripts, restart, hold foreign values,
//! refuse rows.

use super::{
    Harness,
    fixture::{Model, Owner, apply, assert_fenced, writes},
};
use crate::{Base, Commit, Fault, Sink};

/// How often a commit is tried after a restart before the check fails: reconnecting takes a try or two.
const TRIES_MAX: usize = 20;

/// The store lost everything before the lane's first write: the owner's next unit is fenced, and a new owner begins
/// anew. Needs [`Harness::lose_tail`].
pub async fn a_tail_lost_to_the_beginning_fences_the_owner<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let empty = Model::empty(&owner.lane);
    harness.snapshot().await;
    let mut model = empty.clone();
    apply(&mut owner, &sink, &mut model, &writes(3, 1).and_set_aside(1)).await;
    harness.lose_tail().await;

    let sink = harness.open().await;
    assert_fenced(&sink, &owner.unit(&writes(3, 2)), "the store lost all it had").await;
    empty.assert_held(harness, &sink).await;
    let mut newcomer = owner.takes_over(&sink, 2).await;
    let mut model = empty;
    apply(&mut newcomer, &sink, &mut model, &writes(3, 3)).await;
    model.assert_held(harness, &sink).await;
}

/// The store lost whole commits: the owner's next unit is fenced, its read shows an earlier link, and what was lost
/// is done again from the progress that is left. Needs [`Harness::lose_tail`].
pub async fn a_tail_lost_between_commits_fences_the_owner<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(4, 1).and_set_aside(1)).await;
    harness.snapshot().await;
    let mut lost = model.clone();
    apply(&mut owner, &sink, &mut lost, &writes(4, 2)).await;
    apply(&mut owner, &sink, &mut lost, &writes(1, 3).and_set_aside(1)).await;
    harness.lose_tail().await;

    let sink = harness.open().await;
    assert_fenced(&sink, &owner.unit(&writes(2, 4)), "the store lost two commits").await;
    model.assert_held(harness, &sink).await;
    let mut newcomer = owner.takes_over(&sink, 2).await;
    assert_ne!(newcomer.chain.seen(), owner.chain.seen(), "a read shows that the tail is lost");
    apply(&mut newcomer, &sink, &mut model, &writes(4, 2)).await;
    apply(&mut newcomer, &sink, &mut model, &writes(1, 3).and_set_aside(1)).await;
    model.assert_held(harness, &sink).await;
}

/// The store lost the end of a commit whose reply was given: the next unit is fenced, the same unit again completes
/// it. Needs [`Harness::lose_tail`] and [`Harness::interrupt`].
pub async fn a_tail_lost_inside_a_commit_fences_the_owner<H: Harness>(harness: &H) {
    let mut steps = 0;
    loop {
        let (sink, mut owner) = (harness.open().await, Owner::first(harness));
        let mut model = Model::empty(&owner.lane);
        apply(&mut owner, &sink, &mut model, &writes(700, 1)).await;
        let unit = owner.unit(&writes(700, 2).and_set_aside(2));
        let cut_short = harness.interrupt(&unit, steps).await;
        if !cut_short {
            return;
        }
        harness.snapshot().await;
        assert_eq!(
            sink.commit(&unit).await.expect("the retry succeeds"),
            Commit::Applied,
            "after {steps} steps"
        );
        owner.written(&unit);
        harness.lose_tail().await;

        let sink = harness.open().await;
        let next = owner.unit(&writes(1, 3));
        assert_fenced(&sink, &next, &format!("the store lost all but {steps} steps")).await;
        assert_eq!(
            sink.commit(&unit).await.expect("the retry succeeds"),
            Commit::Applied,
            "after {steps} steps"
        );
        model.take(&unit);
        model.assert_held(harness, &sink).await;
        steps += 1;
    }
}

/// Rows that the store would not take are named, all of them and no other, and nothing was stored; without them the
/// rest goes in. Needs [`Harness::STORES_ROWS`].
pub async fn refused_rows_are_named<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(2, 1)).await;
    for (count, bad) in
        [(1, vec![0]), (7, vec![0, 3, 6]), (3000, vec![2999]), (500, vec![0, 1, 250, 251, 499])]
    {
        let mut unit = owner.unit(&writes(count, 5));
        let first = unit.rows[0].offset;
        for &index in &bad {
            let offset = first + i64::try_from(index).expect("small");
            unit.rows[index].write = harness.refused_row(&unit.lane, offset);
        }
        let offsets: Vec<i64> = bad.iter().map(|&index| unit.rows[index].offset).collect();
        match sink.commit(&unit).await.expect("a refusal is no failure") {
            Commit::Refused(refused) => {
                assert!(refused.iter().all(|r| !r.detail.is_empty()), "a refusal says why: {refused:?}");
                let named: Vec<i64> = refused.into_iter().map(|r| r.offset).collect();
                assert_eq!(named, offsets, "of {count} rows");
            }
            other => panic!("expected Refused({offsets:?}), got {other:?}"),
        }
        model.assert_held(harness, &sink).await;

        // The lane projects the same batch again without them, in the place of the unit that was refused.
        unit.rows.retain(|row| !offsets.contains(&row.offset));
        assert_eq!(sink.commit(&unit).await.expect("the rest goes in"), Commit::Applied);
        owner.written(&unit);
        model.take(&unit);
        model.assert_held(harness, &sink).await;
    }
}

/// A broken chain is told before a refusal: a fenced owner has no say about rows. Needs [`Harness::STORES_ROWS`].
pub async fn a_fenced_owner_hears_of_no_refusal<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(2, 1)).await;
    let mut unit = owner.unit(&writes(2, 5));
    unit.follows = None;
    unit.rows[0].write = harness.refused_row(&unit.lane, unit.rows[0].offset);
    assert_fenced(&sink, &unit, "a refused row on a broken chain").await;
    model.assert_held(harness, &sink).await;
}

/// The store forgot its scripts: the sink brings them again by itself. Needs [`Harness::drop_scripts`].
pub async fn forgotten_scripts_are_loaded_again<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(2, 1)).await;
    for value in 2..5 {
        harness.drop_scripts().await;
        apply(&mut owner, &sink, &mut model, &writes(600, value).and_set_aside(1)).await;
        model.assert_held(harness, &sink).await;
    }
}

/// The server restarts with its data: the same sink goes on, at worst after failures that are Transient. Needs
/// [`Harness::restart`].
pub async fn a_restart_is_survived<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(300, 1).and_set_aside(1)).await;
    harness.restart().await;
    let unit = owner.unit(&writes(300, 2));
    let mut tries = 0;
    let outcome = loop {
        match sink.commit(&unit).await {
            Ok(outcome) => break outcome,
            Err(error) if error.fault == Fault::Transient && tries < TRIES_MAX => tries += 1,
            Err(error) => panic!("after {tries} tries: {:?}: {error}", error.fault),
        }
    };
    assert!(matches!(outcome, Commit::Applied | Commit::AlreadyApplied), "{outcome:?}");
    owner.written(&unit);
    model.take(&unit);
    model.assert_held(harness, &sink).await;
}

/// A value of another type where an entity should live is Permanent, named, and nothing of that unit is shown in
/// that entity's step; the lane's link has not moved past it. Needs [`Harness::occupy`].
pub async fn a_foreign_value_is_permanent<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(0, 1)).await;
    let unit = owner.unit(&writes(3, 2));
    harness.occupy(&unit.entities[1].home).await;
    let error = sink.commit(&unit).await.expect_err("the home is occupied");
    assert_eq!(error.fault, Fault::Permanent, "{error}");
    assert!(error.to_string().contains(&unit.entities[1].home), "the error names the home: {error}");
    model.assert_held(harness, &sink).await;
    assert_eq!(harness.shown(&unit.entities[0].home).await, None, "nothing of the step was written");
}

/// An entity that the lane wrote, and that somebody has removed since, is there again as a whole with its next write,
/// whatever of it the lane took for known; those beside it are as they have to be. Needs [`Harness::remove`].
pub async fn what_was_removed_is_written_as_a_whole<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let unit = apply(&mut owner, &sink, &mut model, &writes(3, 3)).await;
    for (removed, value) in [(1, 5), (0, 6), (2, 7)] {
        harness.remove(&unit.entities[removed].home).await;
        apply(&mut owner, &sink, &mut model, &writes(3, value)).await;
        model.assert_held(harness, &sink).await;
    }
    // Somebody who takes it for never written: what it left elsewhere goes all the same.
    for removed in [1, 0] {
        harness.remove(&unit.entities[removed].home).await;
    }
    let mut fresh = owner.unit(&writes(3, 8));
    fresh.entities.iter_mut().for_each(|entity| entity.base = Base::Nothing);
    assert_eq!(sink.commit(&fresh).await.expect("the store answers"), Commit::Applied);
    owner.written(&fresh);
    for entity in &fresh.entities {
        assert_eq!(harness.shown(&entity.home).await, Some(8), "`{}`", entity.home);
    }
}
