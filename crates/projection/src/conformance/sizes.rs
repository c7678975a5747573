//! Batches of every size.

use super::{
    Harness,
    fixture::{Model, Owner, apply, writes},
};
use crate::{Commit, Sink};

/// A unit that writes nothing moves progress and the chain: the end of a partition behind transaction markers and
/// duplicates has to be reached.
pub async fn an_empty_batch_moves_progress<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    for value in 1..4 {
        owner.main += 10;
        let unit = apply(&mut owner, &sink, &mut model, &writes(0, value)).await;
        assert_eq!(sink.commit(&unit).await.expect("the store answers"), Commit::AlreadyApplied);
        model.assert_held(harness, &sink).await;
    }
}

/// A large batch goes in whole: 20,000 entities or 100,000 rows, and a thousand set-asides.
pub async fn a_large_batch_is_taken<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut model = Model::empty(&owner.lane);
    let things = if H::STORES_ROWS { 100_000 } else { 20_000 };
    let unit = apply(&mut owner, &sink, &mut model, &writes(things, 1).and_set_aside(1000)).await;
    assert_eq!(sink.commit(&unit).await.expect("the store answers"), Commit::AlreadyApplied);
    model.assert_held(harness, &sink).await;
    apply(&mut owner, &sink, &mut model, &writes(3, 2)).await;
    model.assert_held(harness, &sink).await;
}

/// Texts that need escaping somewhere on their way come back as they went in: in states, ledgers and homes.
pub async fn odd_texts_come_back_unchanged<H: Harness>(harness: &H) {
    let (sink, mut owner) = (harness.open().await, Owner::first(harness));
    let mut unit = owner.unit(&writes(1, 1).and_set_aside(1));
    let text = "\"quotes\" 'single' \\backslash\\ line\nbreak \u{1F916} {brace} $1 %s";
    unit.set_aside[0].reject.detail = text.to_owned();
    let state = serde_json::to_vec(&text).expect("text is JSON");
    let homes: Vec<String> = unit.entities.iter().map(|change| change.home.clone()).collect();
    for change in &mut unit.entities {
        change.state.clone_from(&state);
    }
    assert_eq!(sink.commit(&unit).await.expect("the commit succeeds"), Commit::Applied);
    let stored = sink.read(&owner.lane, &homes).await.expect("the store answers");
    for stored in stored.states {
        assert_eq!(stored.map(|stored| stored.state), Some(state.clone()));
    }
    assert_eq!(harness.ledger(&owner.lane).await.len(), 1);
}
