//! The chain: what is taken, what was taken before, and what is fenced.

use super::{
    Harness,
    fixture::{Model, Owner, apply, assert_fenced, writes},
};
use crate::{Chain, Commit, LaneId, Sink};

/// A lane that nobody wrote to has no link, no progress, nothing named; homes without a state answer none.
pub async fn a_new_lane_is_empty<H: Harness>(harness: &H) {
    let (sink, owner) = (harness.open().await, Owner::first(harness));
    sink.check().await.expect("the store is fit");
    let homes = if H::STORES_ENTITIES { vec![owner.home(0), owner.home(1)] } else { Vec::new() };
    let stored = sink.read(&owner.lane, &homes).await.expect("the store answers");
    assert_eq!(stored.states, vec![None; homes.len()]);
    Model::empty(&owner.lane).assert_held(harness, &sink).await;
}

/// Units of work in order are taken, each once, whole: states, readable parts, rows, ledger, progress, link.
pub async fn applied_once<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    for plan in [writes(3, 1), writes(1, 2).and_set_aside(2), writes(0, 3), writes(5, 4)] {
        apply(&mut owner, &sink, &mut model, &plan).await;
        model.assert_held(harness, &sink).await;
    }
    model.assert_held(harness, &harness.open().await).await;
}

/// A lost reply: the same unit again is *already applied*, by the same connection and by another, and changes nothing.
pub async fn the_same_again_is_already_applied<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    for plan in [writes(3, 1), writes(2, 2).and_set_aside(1), writes(0, 3)] {
        let unit = apply(&mut owner, &sink, &mut model, &plan).await;
        for again in [&sink, &harness.open().await] {
            assert_eq!(again.commit(&unit).await.expect("the store answers"), Commit::AlreadyApplied);
        }
        model.assert_held(harness, &sink).await;
    }
}

/// *Already applied* is answered only for the link that is stored: an older unit of the same owner is fenced. There
/// is no "at or past".
pub async fn an_older_unit_is_fenced<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let older = apply(&mut owner, &sink, &mut model, &writes(2, 1)).await;
    apply(&mut owner, &sink, &mut model, &writes(1, 2)).await;
    assert_fenced(&sink, &older, "a unit before the last one").await;
    model.assert_held(harness, &sink).await;
}

/// A write that follows any other link than the stored one is fenced and changes nothing: none on a lane that has
/// one, one on a lane that has none, a part of the stored one, another counter, another nonce.
pub async fn any_other_link_is_fenced<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let mut stranger = Owner::of(harness, owner.lane.clone(), Chain::resume(9, None), 0);

    let mut early = owner.unit(&writes(1, 7));
    early.follows = Some(stranger.chain.next().1);
    assert_fenced(&sink, &early, "a link on a lane that has none").await;
    model.assert_held(harness, &sink).await;

    let taken = apply(&mut owner, &sink, &mut model, &writes(2, 1)).await;
    let others =
        [None, Some(taken.leaves.part(1)), Some(early.leaves), Some(stranger.chain.next().1), early.follows];
    for follows in others {
        let mut unit = owner.unit(&writes(2, 8).and_set_aside(1));
        unit.follows = follows;
        assert_fenced(&sink, &unit, &format!("following {follows:?}")).await;
        model.assert_held(harness, &sink).await;
    }
    apply(&mut owner, &sink, &mut model, &writes(2, 2)).await;
    model.assert_held(harness, &sink).await;
}

/// A zombie: an owner that lost the lane without noticing writes what it folded onto cached states. It is fenced,
/// its read shows a link that is not its own, and the new owner goes on.
pub async fn a_zombie_with_cached_state_is_fenced<H: Harness>(harness: &H) {
    let (sink, mut zombie) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&zombie.lane);
    apply(&mut zombie, &sink, &mut model, &writes(3, 1)).await;

    let other = harness.open().await;
    let mut owner = zombie.takes_over(&other, 2).await;
    apply(&mut owner, &other, &mut model, &writes(2, 2).and_set_aside(1)).await;

    let late = zombie.unit(&writes(3, 99));
    assert_fenced(&sink, &late, "a zombie").await;
    let seen = sink.read(&zombie.lane, &[]).await.expect("the store answers").link;
    assert_ne!(seen, zombie.chain.seen(), "a zombie's read shows it another link");
    model.assert_held(harness, &sink).await;

    apply(&mut owner, &other, &mut model, &writes(1, 3)).await;
    assert_fenced(&sink, &late, "the zombie once more").await;
    model.assert_held(harness, &other).await;
}

/// Two owners with different code take up the same link: one write is taken, the other is fenced although both go
/// to the same progress.
pub async fn an_owner_with_other_code_is_fenced<H: Harness>(harness: &H) {
    let (sink, mut first) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&first.lane);
    apply(&mut first, &sink, &mut model, &writes(2, 1)).await;

    let mut second = first.takes_over(&sink, 2).await;
    let (mine, theirs) = (first.unit(&writes(2, 50)), second.unit(&writes(2, 60)));
    assert_eq!(sink.commit(&theirs).await.expect("the commit succeeds"), Commit::Applied);
    model.take(&theirs);
    assert_fenced(&sink, &mine, "the other owner's link is stored").await;
    model.assert_held(harness, &sink).await;
}

/// A lane's chain concerns that lane only: partitions, topics, projections and versions do not disturb each other.
pub async fn lanes_are_independent<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    apply(&mut owner, &sink, &mut model, &writes(1, 1)).await;
    let lane = owner.lane.clone();
    let others = [
        LaneId { partition: lane.partition + 1, ..lane.clone() },
        LaneId { version: lane.version + 1, ..lane.clone() },
        LaneId { projection: format!("{}-b", lane.projection), ..lane.clone() },
        LaneId { topic: format!("{}-b", lane.topic), ..lane },
    ];
    for lane in others {
        let mut neighbour = Owner::of(harness, lane.clone(), Chain::resume(3, None), 100);
        let mut beside = Model::empty(&lane);
        beside.assert_held(harness, &sink).await;
        apply(&mut neighbour, &sink, &mut beside, &writes(0, 5).and_set_aside(2)).await;
        beside.assert_held(harness, &sink).await;
        model.assert_held(harness, &sink).await;
    }
}
