//! The suite finds what it is made to find: sinks that are wrong in one way each fail the check that is about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use fleetlog_event::LogId;

use super::Harness;
use crate::{
    Commit, Fault, HotWrite, LaneId, LedgerEntry, MemorySink, Sink, SinkError, Stored, UnitOfWork,
    memory::{Moment, Trouble},
};

/// What is wrong with a sink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Takes a broken chain for an earlier write ("at or past").
    NeverFences,
    /// Takes everything, whatever it follows.
    TakesAnything,
    /// Does not recognise a write that it stored.
    ForgetsItsReplies,
    /// Enters no set-asides.
    NoLedger,
    /// Writes set-asides in a commit of their own, after the entities.
    LedgerLast,
    /// Names nothing on read.
    NamesNothing,
    /// Writes readable parts without the state.
    Torn,
    /// Closes entries before it does the work.
    ClosesFirst,
    /// Keeps progress where it is when there is nothing to write.
    SkipsEmptyBatches,
}

#[derive(Clone)]
struct BrokenSink {
    inner: MemorySink<HotWrite>,
    wrong: Wrong,
}

impl Sink for BrokenSink {
    type Write = HotWrite;
    const IN_PARTS: bool = true;

    async fn check(&self) -> Result<(), SinkError> {
        self.inner.check().await
    }

    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        let mut stored = self.inner.read(lane, homes).await?;
        if self.wrong == Wrong::NamesNothing {
            stored.named.clear();
        }
        Ok(stored)
    }

    async fn entries(
        &self,
        lane: &LaneId,
        log: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        self.inner.entries(lane, log, offsets).await
    }

    async fn not_taken(
        &self,
        lane: &LaneId,
        log: LogId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        self.inner.not_taken(lane, log, range).await
    }

    async fn commit(&self, unit: &UnitOfWork<HotWrite>) -> Result<Commit, SinkError> {
        let mut unit = unit.clone();
        let stored = self.inner.lane(&unit.lane).link;
        match self.wrong {
            Wrong::NeverFences => {
                return match self.inner.commit(&unit).await {
                    Err(error) if error.fault == Fault::Fenced => Ok(Commit::AlreadyApplied),
                    other => other,
                };
            }
            Wrong::TakesAnything => unit.follows = stored,
            Wrong::ForgetsItsReplies if stored == Some(unit.leaves) => {
                return Err(SinkError::fenced(&unit.lane, unit.follows, stored));
            }
            Wrong::NoLedger => unit.set_aside.clear(),
            Wrong::ClosesFirst if !unit.entries.is_empty() && stored == unit.follows => {
                let first =
                    UnitOfWork { leaves: unit.leaves.part(9999), entities: Vec::new(), ..unit.clone() };
                self.inner.commit(&first).await?;
                unit = UnitOfWork { entries: Vec::new(), follows: Some(first.leaves), ..unit };
            }
            Wrong::LedgerLast if !unit.entities.is_empty() && !unit.set_aside.is_empty() => {
                let first =
                    UnitOfWork { set_aside: Vec::new(), leaves: unit.leaves.part(9999), ..unit.clone() };
                let progress = self.inner.lane(&unit.lane).progress;
                self.inner
                    .commit(&UnitOfWork { progress: progress.unwrap_or(unit.progress), ..first.clone() })
                    .await?;
                unit = UnitOfWork { entities: Vec::new(), follows: Some(first.leaves), ..unit };
            }
            Wrong::Torn => unit.entities.iter_mut().for_each(|change| change.state = b"1".to_vec()),
            Wrong::SkipsEmptyBatches if unit.entities.is_empty() && unit.set_aside.is_empty() => {
                return Ok(Commit::Applied);
            }
            _ => {}
        }
        self.inner.commit(&unit).await
    }
}

struct Broken {
    sink: BrokenSink,
    snapshot: Arc<std::sync::Mutex<Option<Moment>>>,
}

impl Broken {
    fn new(wrong: Wrong) -> Self {
        let sink = BrokenSink { inner: MemorySink::with_history(300), wrong };
        Self { sink, snapshot: Arc::default() }
    }
}

impl Harness for Broken {
    type Sink = BrokenSink;
    const STORES_ENTITIES: bool = true;
    const STORES_ROWS: bool = false;

    async fn open(&self) -> BrokenSink {
        self.sink.clone()
    }
    fn lane(&self) -> LaneId {
        let topic = format!("topic-{}", self.sink.inner.lanes().len());
        LaneId { projection: "conformance".into(), version: 1, topic, partition: 0 }
    }
    fn entity_writes(&self, _: &str, value: i64) -> Vec<HotWrite> {
        vec![HotWrite::field("value", value.to_string())]
    }
    async fn shown(&self, home: &str) -> Option<i64> {
        self.sink.inner.fields(home).get("value").and_then(|value| value.parse().ok())
    }
    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        let ledger = self.sink.inner.lane(lane).ledger;
        ledger.into_iter().map(|(offset, entry)| (offset, entry.reject.reason.to_string())).collect()
    }
    async fn interrupt(&self, unit: &UnitOfWork<HotWrite>, steps: usize) -> bool {
        let calls = self.sink.inner.calls();
        let after = u64::try_from(steps).unwrap_or(u64::MAX) + 1;
        self.sink.inner.trouble_at(after, Trouble::FailBefore);
        let done = self.sink.commit(unit).await.is_ok();
        while done && self.sink.inner.calls() < calls + after {
            let _ = self.sink.inner.check().await;
        }
        !done
    }
    async fn snapshot(&self) {
        *self.snapshot.lock().expect("no test panicked holding it") = Some(self.sink.inner.moment());
    }
    async fn lose_tail(&self) {
        let moment = self.snapshot.lock().expect("no test panicked holding it").expect("a snapshot was made");
        self.sink.inner.lose_tail(moment);
    }
}

/// Each wrong sink, the check that has to fail, and words of its failure.
macro_rules! found {
    ($($name:ident: $wrong:ident, $check:ident, $told:literal;)+) => {
        $(
            #[tokio::test]
            #[should_panic(expected = $told)]
            async fn $name() {
                super::$check(&Broken::new(Wrong::$wrong)).await;
            }
        )+
    };
}

found! {
    at_or_past_is_found_by_an_older_unit: NeverFences, an_older_unit_is_fenced, "expected Fenced";
    at_or_past_is_found_by_a_zombie: NeverFences, a_zombie_with_cached_state_is_fenced, "expected Fenced";
    at_or_past_is_found_by_a_lost_tail: NeverFences, a_tail_lost_between_commits_fences_the_owner, "expected Fenced";
    at_or_past_is_found_inside_a_commit: NeverFences, a_tail_lost_inside_a_commit_fences_the_owner, "expected Fenced";
    taking_anything_is_found_by_other_links: TakesAnything, any_other_link_is_fenced, "expected Fenced";
    taking_anything_is_found_by_other_code: TakesAnything, an_owner_with_other_code_is_fenced, "expected Fenced";
    a_forgotten_reply_is_found: ForgetsItsReplies, the_same_again_is_already_applied, "the store answers";
    a_missing_ledger_is_found: NoLedger, applied_once, "ledger";
    a_ledger_written_last_is_found: LedgerLast, set_asides_come_before_what_they_concern, "before the set-asides";
    missing_names_are_found: NamesNothing, set_asides_come_before_what_they_concern, "named";
    a_torn_entity_is_found: Torn, applied_once, "state of";
    an_entry_that_closes_before_the_work_is_found: ClosesFirst, an_entry_closes_with_what_it_is_about, "it is one step";
    a_skipped_empty_batch_is_found: SkipsEmptyBatches, an_empty_batch_moves_progress, "AlreadyApplied";
}
