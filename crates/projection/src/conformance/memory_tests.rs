//! The in-memory sink passes the suite: as a store of entities, and as one of rows.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicU32, atomic::Ordering},
};

use super::Harness;
use crate::{
    HotWrite, LaneId, MemorySink, Sink, UnitOfWork,
    memory::{Moment, Trouble},
};

/// Small steps, so that commits have several.
const ENTITIES_PER_STEP: usize = 300;

struct Memory<W, const ENTITIES: bool> {
    sink: MemorySink<W>,
    lanes: AtomicU32,
    snapshot: Mutex<Option<Moment>>,
}

impl<W: Clone + Send + Sync + 'static, const ENTITIES: bool> Memory<W, ENTITIES> {
    fn new() -> Self {
        let sink = MemorySink::with_history(ENTITIES_PER_STEP);
        Self { sink, lanes: AtomicU32::new(0), snapshot: Mutex::new(None) }
    }

    fn new_lane(&self) -> LaneId {
        let n = self.lanes.fetch_add(1, Ordering::Relaxed);
        LaneId { projection: "conformance".into(), version: 1, topic: format!("topic-{n}"), partition: 0 }
    }

    fn entered(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        let ledger = self.sink.lane(lane).ledger;
        ledger.into_iter().map(|(offset, entry)| (offset, entry.reject.reason.to_string())).collect()
    }

    async fn cut_short(&self, unit: &UnitOfWork<W>, steps: usize) -> bool {
        let after = u64::try_from(steps).unwrap() + 1;
        let calls = self.sink.calls();
        self.sink.trouble_at(after, Trouble::FailBefore);
        let done = self.sink.commit(unit).await.is_ok();
        if done {
            // The whole commit took no more than `steps` calls: use up the trouble that was not met.
            for _ in self.sink.calls()..calls + after {
                let _ = self.sink.check().await;
            }
        }
        !done
    }

    fn remember(&self) {
        *self.snapshot.lock().unwrap() = Some(self.sink.moment());
    }

    fn forget(&self) {
        self.sink.lose_tail(self.snapshot.lock().unwrap().unwrap());
    }
}

impl Harness for Memory<HotWrite, true> {
    type Sink = MemorySink<HotWrite>;
    const STORES_ENTITIES: bool = true;
    const STORES_ROWS: bool = false;

    async fn open(&self) -> Self::Sink {
        self.sink.clone()
    }
    fn lane(&self) -> LaneId {
        self.new_lane()
    }
    fn entity_writes(&self, home: &str, value: i64) -> Vec<HotWrite> {
        let (list, member) = ("list".to_owned(), home.to_owned());
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let score = Some(value as f64);
        vec![HotWrite::field("value", value.to_string()), HotWrite::Ranked { list, member, score }]
    }
    async fn shown(&self, home: &str) -> Option<i64> {
        self.sink.fields(home).get("value").map(|value| value.parse().unwrap())
    }
    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        self.entered(lane)
    }
    async fn interrupt(&self, unit: &UnitOfWork<HotWrite>, steps: usize) -> bool {
        self.cut_short(unit, steps).await
    }
    async fn snapshot(&self) {
        self.remember();
    }
    async fn lose_tail(&self) {
        self.forget();
    }
}

impl Harness for Memory<i64, false> {
    type Sink = MemorySink<i64>;
    const STORES_ENTITIES: bool = false;
    const STORES_ROWS: bool = true;

    async fn open(&self) -> Self::Sink {
        self.sink.clone()
    }
    fn lane(&self) -> LaneId {
        self.new_lane()
    }
    fn row(&self, _: &LaneId, _: i64, value: i64) -> i64 {
        value
    }
    fn refused_row(&self, _: &LaneId, offset: i64) -> i64 {
        self.sink.refuse([offset]);
        -1
    }
    async fn rows(&self, lane: &LaneId) -> Vec<(i64, i64)> {
        let rows = self.sink.lane(lane).rows;
        rows.into_iter()
            .flat_map(|(offset, values)| values.into_iter().map(move |value| (offset, value)))
            .collect()
    }
    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        self.entered(lane)
    }
    async fn interrupt(&self, unit: &UnitOfWork<i64>, steps: usize) -> bool {
        self.cut_short(unit, steps).await
    }
    async fn snapshot(&self) {
        self.remember();
    }
    async fn lose_tail(&self) {
        self.forget();
    }
}

mod entities {
    use super::*;
    crate::conformance_tests! { Memory::<HotWrite, true>::new() =>
        a_new_lane_is_empty, applied_once, the_same_again_is_already_applied, an_older_unit_is_fenced,
        any_other_link_is_fenced, a_zombie_with_cached_state_is_fenced, an_owner_with_other_code_is_fenced,
        lanes_are_independent, an_interrupted_commit_is_completed_by_its_retry,
        set_asides_come_before_what_they_concern, another_owner_replaces_an_interrupted_commit,
        two_interrupted_commits_do_not_mix, a_tail_lost_to_the_beginning_fences_the_owner,
        a_tail_lost_between_commits_fences_the_owner, a_tail_lost_inside_a_commit_fences_the_owner,
        an_empty_batch_moves_progress, a_large_batch_is_taken, odd_texts_come_back_unchanged, entries_are_told, an_entry_closes_with_what_it_is_about,
        what_is_closed_stays_closed,
    }
}

mod rows {
    use super::*;
    crate::conformance_tests! { Memory::<i64, false>::new() =>
        a_new_lane_is_empty, applied_once, the_same_again_is_already_applied, an_older_unit_is_fenced,
        any_other_link_is_fenced, a_zombie_with_cached_state_is_fenced, an_owner_with_other_code_is_fenced,
        lanes_are_independent, an_interrupted_commit_is_completed_by_its_retry,
        another_owner_replaces_an_interrupted_commit, two_interrupted_commits_do_not_mix,
        set_asides_come_before_what_they_concern, a_tail_lost_to_the_beginning_fences_the_owner,
        a_tail_lost_between_commits_fences_the_owner, a_tail_lost_inside_a_commit_fences_the_owner,
        refused_rows_are_named, a_fenced_owner_hears_of_no_refusal, an_empty_batch_moves_progress,
        a_large_batch_is_taken, odd_texts_come_back_unchanged, entries_are_told, an_entry_closes_with_what_it_is_about,
        what_is_closed_stays_closed,
    }
}
