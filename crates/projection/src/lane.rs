//! The decisions of a lane, without its I/O: where it begins to read, what it takes of a batch, what it writes next.
//!
//! Pure, so that each rule can be tested (and a model checker can run it). The engine's lane carries out what this
//! decides. A [`LaneCore`] lives from one reading of progress to the next *Fenced*: nothing of it survives that.

use fleetlog_event::{EventId, LogId, TimestampMs};

use crate::{
    Chain, DedupWindow, EntityChange, EntryChange, LaneId, LaneScope, LastRecord, Link, Progress, Record,
    RowChange, Rulings, SetAside, Stored, UnitOfWork,
    mutant::{Mutant, on},
};

/// A lane's log as the cluster shows it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogNow {
    /// The topic's id and the lane's partition in it.
    pub scope: LaneScope,
    /// The first offset that is still there.
    pub low: i64,
    /// One past the last offset that a reader of committed records may see.
    pub high: i64,
}

/// Log history that progress stands on is gone: Permanent, and only a person can choose the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogLost {
    /// The topic was deleted and made again.
    #[error(
        "lane {lane}: its progress is of log {stored}, the topic is now log {found}: it was deleted and made again; {}",
        ways_out(.lane)
    )]
    OtherLog {
        /// Whose progress.
        lane: LaneId,
        /// The log that progress belongs to.
        stored: LogId,
        /// The log that is there.
        found: LogId,
    },
    /// Retention took records that the lane has not taken.
    #[error(
        "lane {lane}: retention overtook it: progress is {progress}, the log begins at {low}, {} offsets are lost; {}",
        low - progress, ways_out(.lane)
    )]
    Overtaken {
        /// Whose progress.
        lane: LaneId,
        /// The next offset it would take.
        progress: i64,
        /// Where the log begins.
        low: i64,
    },
    /// The log is shorter than it was.
    #[error(
        "lane {lane}: its progress {progress} lies past the log's end {high}: the log lost its tail; {}",
        ways_out(.lane)
    )]
    PastEnd {
        /// Whose progress.
        lane: LaneId,
        /// The next offset it would take.
        progress: i64,
        /// Where the log ends.
        high: i64,
    },
    /// Another record lies where the last one taken was.
    #[error(
        "lane {lane}: the record at offset {offset} is not the one that was taken: the log was replaced; {}",
        ways_out(.lane)
    )]
    LastRecordDiffers {
        /// Whose progress.
        lane: LaneId,
        /// Where the last record taken was.
        offset: i64,
    },
    /// No record lies where the last one taken was.
    #[error(
        "lane {lane}: no record at offset {offset}, where the last one was taken: the log was replaced; {}",
        ways_out(.lane)
    )]
    LastRecordMissing {
        /// Whose progress.
        lane: LaneId,
        /// Where the last record taken was.
        offset: i64,
    },
}

fn ways_out(lane: &LaneId) -> String {
    format!(
        "either rebuild `{}` from the log as it is now, or adopt the log (only after a restore that kept its offsets)",
        lane.projection
    )
}

/// What was read of a partition without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Where the reading began: the lane takes the batch only if that is its cursor.
    pub begin: i64,
    /// The records, by offset. Offsets may have holes (transaction markers).
    pub records: Vec<Record>,
    /// Where the reading goes on.
    pub next: i64,
}

/// What to do with a batch.
#[derive(Debug)]
pub enum Admission {
    /// Its reading began elsewhere (prefetched before a seek): drop it, read at the cursor.
    Stale,
    /// It goes on from the cursor.
    Take(Taken),
}

/// A batch that goes on from the cursor, without what lies below progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taken {
    /// The records at or above progress, duplicates included.
    pub records: Vec<Record>,
    /// For each of them: whether it is a duplicate.
    pub duplicate: Vec<bool>,
    /// How many records below progress only filled the window again.
    pub refilled: usize,
}

impl Taken {
    /// The records that are no duplicates.
    #[must_use]
    pub fn fresh(&self) -> Vec<&Record> {
        let fresh = self.records.iter().zip(&self.duplicate).filter(|(_, duplicate)| !**duplicate);
        fresh.map(|(record, _)| record).collect()
    }
}

/// What a step writes, before it has its place in the chain. By default nothing.
#[derive(Debug)]
pub struct Writes<W> {
    /// Entities changed.
    pub entities: Vec<EntityChange<W>>,
    /// Rows added.
    pub rows: Vec<RowChange<W>>,
    /// Events not taken.
    pub set_aside: Vec<SetAside>,
    /// Entries of the ledger that a command changes.
    pub entries: Vec<EntryChange>,
}

impl<W> Default for Writes<W> {
    fn default() -> Self {
        Self { entities: Vec::new(), rows: Vec::new(), set_aside: Vec::new(), entries: Vec::new() }
    }
}

impl<W> Writes<W> {
    /// Whether nothing but progress would move.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
            && self.rows.is_empty()
            && self.set_aside.is_empty()
            && self.entries.is_empty()
    }
}

/// What a round has to write beside states, when a piece of it is made. A round is what was projected up to some moment;
/// where its states are more than one write may carry, it goes in pieces, each the states of some of its entities.
#[derive(Debug)]
pub struct Due<'a, W> {
    /// Where the round takes the lane.
    pub reach: Progress,
    /// Whether no entity of the round is left for another piece.
    pub is_last: bool,
    /// Its rows, unless an earlier piece took them.
    pub rows: &'a mut Vec<RowChange<W>>,
    /// Its set-asides, unless an earlier piece took them.
    pub set_aside: &'a mut Vec<SetAside>,
    /// Set-asides of batches that were projected after the round, unless an earlier piece took them.
    pub beyond: &'a mut Vec<SetAside>,
}

/// A lane's place: in the log, in the chain, in the duplicate window.
///
/// Batches may be admitted ahead of the write that is under way; the next write covers all of them. What was admitted
/// and is never written is forgotten with the `LaneCore`, which does not outlive a failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneCore {
    lane: LaneId,
    scope: LaneScope,
    chain: Chain,
    progress: Progress,
    /// Up to here the log was admitted, and this was the last record of it.
    cursor: i64,
    last: Option<LastRecord>,
    dedup: DedupWindow,
    rulings: Rulings,
    unchecked: Option<LastRecord>,
}

impl LaneCore {
    /// Takes up a lane where the store stands. Without stored progress it begins at the log's beginning; else as far
    /// below progress as the duplicate window reaches (records below progress only fill the window, and the last one
    /// taken is recognised by its hash). `nonce` must never have been used before.
    ///
    /// # Errors
    /// When the log is not the one, or not all of the one, that progress stands on.
    pub fn start(
        lane: LaneId,
        stored: &Stored,
        log: &LogNow,
        dedup_span_offsets: i64,
        nonce: u64,
    ) -> Result<Self, LogLost> {
        let chain = Chain::resume(nonce, stored.link);
        let dedup = DedupWindow::new(dedup_span_offsets);
        let rulings = Rulings { named: stored.named.iter().copied().collect(), ..Rulings::default() };
        let Some(progress) = stored.progress else {
            let progress = Progress { log: log.scope.log, main: log.low, inbox: 0, last: None };
            let cursor = log.low;
            return Ok(Self {
                lane,
                scope: log.scope,
                chain,
                progress,
                cursor,
                last: None,
                dedup,
                rulings,
                unchecked: None,
            });
        };
        check_range(&lane, &progress, log)?;
        let unchecked = progress.last.filter(|last| last.offset >= log.low);
        let window = progress.main - dedup_span_offsets;
        let cursor = unchecked.map_or(window, |last| window.min(last.offset)).max(log.low);
        Ok(Self {
            lane,
            scope: log.scope,
            chain,
            progress,
            cursor,
            last: progress.last,
            dedup,
            rulings,
            unchecked,
        })
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> &LaneId {
        &self.lane
    }

    /// The part of the log it reads.
    #[must_use]
    pub fn scope(&self) -> &LaneScope {
        &self.scope
    }

    /// Where its next batch has to begin.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// What is written.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether it has read further than it has written: an empty move is due.
    #[must_use]
    pub fn moved_silently(&self) -> bool {
        self.cursor > self.progress.main
    }

    /// Whether the stored link is the one this owner left.
    #[must_use]
    pub fn owns(&self, stored: Option<Link>) -> bool {
        stored == self.chain.seen() || on(Mutant::LinkCheckOff)
    }

    /// The link this owner expects in the store.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        self.chain.seen()
    }

    /// Rulings for a batch's first projection.
    #[must_use]
    pub fn rulings(&self) -> &Rulings {
        &self.rulings
    }

    /// Judges a batch and moves the cursor over it.
    ///
    /// # Errors
    /// When the last record taken is not where it was.
    pub fn admit(
        &mut self,
        batch: Batch,
        event_id: impl Fn(&Record) -> Option<EventId>,
    ) -> Result<Admission, LogLost> {
        if batch.begin != self.cursor && !on(Mutant::StalePrefetch) {
            return Ok(Admission::Stale);
        }
        let mut records = batch.records;
        let refilled = records.partition_point(|record| record.offset < self.progress.main);
        let fresh = records.split_off(refilled);
        self.check_last(&records, batch.next)?;
        let _ = self.dedup.sift(&records, &event_id);
        let duplicate = self.dedup.sift(&fresh, &event_id);
        self.cursor = batch.next;
        if let Some(record) = fresh.last() {
            self.last = Some(LastRecord { offset: record.offset, hash: record.hash() });
        }
        Ok(Admission::Take(Taken { records: fresh, duplicate, refilled }))
    }

    fn check_last(&mut self, below: &[Record], next: i64) -> Result<(), LogLost> {
        let Some(last) = self.unchecked else { return Ok(()) };
        let (lane, offset) = (self.lane.clone(), last.offset);
        match below.iter().find(|record| record.offset == last.offset) {
            Some(record) if record.hash() == last.hash => self.unchecked = None,
            Some(_) => return Err(LogLost::LastRecordDiffers { lane, offset }),
            None if next > last.offset => return Err(LogLost::LastRecordMissing { lane, offset }),
            None => {}
        }
        Ok(())
    }

    /// Where a write of everything admitted takes the lane.
    #[must_use]
    pub fn reach(&self) -> Progress {
        Progress { main: self.cursor.max(self.progress.main), last: self.last, ..self.progress }
    }

    /// The write that takes the lane over everything admitted, in its place in the chain: made when no other is under
    /// way. Without `writes` it only moves progress, over transaction markers and duplicates.
    pub fn unit<W>(&mut self, writes: Writes<W>, made_at: TimestampMs) -> UnitOfWork<W> {
        self.unit_to(self.reach(), writes, made_at)
    }

    /// The write that takes the lane to `progress`: to where it is, for a piece of what takes it further; to where an
    /// earlier one that the store refused would have taken it.
    pub fn unit_to<W>(
        &mut self,
        progress: Progress,
        writes: Writes<W>,
        made_at: TimestampMs,
    ) -> UnitOfWork<W> {
        let beyond = on(Mutant::ProgressOffByOne) && !writes.is_empty() && progress != self.progress;
        let progress = Progress { main: progress.main + i64::from(beyond), ..progress };
        let (follows, leaves) = self.chain.next();
        let Writes { entities, rows, set_aside, entries } = writes;
        let lane = self.lane.clone();
        UnitOfWork { lane, follows, leaves, progress, entities, rows, set_aside, entries, made_at }
    }

    /// The write that carries out commands, up to `inbox`: made when nothing is under way and all that was admitted is
    /// written, so that it stands between two batches.
    pub fn unit_of_commands<W>(
        &mut self,
        inbox: i64,
        writes: Writes<W>,
        made_at: TimestampMs,
    ) -> UnitOfWork<W> {
        self.unit_to(Progress { inbox, ..self.progress }, writes, made_at)
    }

    /// A piece of a round, with states of some of its entities as they are by now. So that nothing is past its set-asides,
    /// and progress is past nothing that is missing, wherever the round ends early: what is set aside goes with the first
    /// piece, also what was since then if states may cover it; progress goes with the last.
    pub fn piece<W>(
        &mut self,
        entities: Vec<EntityChange<W>>,
        due: Due<'_, W>,
        made_at: TimestampMs,
    ) -> UnitOfWork<W> {
        let Due { reach, is_last, rows, set_aside, beyond } = due;
        let is_time = is_last || !on(Mutant::SetAsidesWithLastPiece);
        let mut asides = if is_time { std::mem::take(set_aside) } else { Vec::new() };
        if is_time && !entities.is_empty() && !on(Mutant::SetAsidesBeyondLeft) {
            asides.append(beyond);
        }
        let moves = is_last || on(Mutant::ProgressWithFirstPiece);
        let progress = if moves { reach } else { self.progress };
        let writes = Writes { entities, rows: std::mem::take(rows), set_aside: asides, entries: Vec::new() };
        self.unit_to(progress, writes, made_at)
    }

    /// The write was taken.
    pub fn written(&mut self, leaves: Link, progress: Progress) {
        self.chain.written(leaves);
        self.progress = progress;
        let named = self.rulings.named.split_off(&progress.main);
        self.rulings.named = named;
    }

    /// What a mutant lets outlive *Fenced*.
    #[cfg(feature = "mutants")]
    pub fn inherit(&mut self, before: &mut Self) {
        if on(Mutant::DedupLearnsEarly) {
            std::mem::swap(&mut self.dedup, &mut before.dedup);
        }
    }
}

fn check_range(lane: &LaneId, progress: &Progress, log: &LogNow) -> Result<(), LogLost> {
    let (lane, main) = (lane.clone(), progress.main);
    if progress.log != log.scope.log {
        Err(LogLost::OtherLog { lane, stored: progress.log, found: log.scope.log })
    } else if main < log.low {
        Err(LogLost::Overtaken { lane, progress: main, low: log.low })
    } else if main > log.high {
        Err(LogLost::PastEnd { lane, progress: main, high: log.high })
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "lane/tests.rs"]
mod tests;
