//! What a lane has projected ahead of the write that is under way, and that write.

use fleetlog_event::TimestampMs;
use fleetlog_projection::{
    Commit, Progress, Projected, Projection, Record, RowChange, SetAside, Taken, UnitOfWork,
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    fault::Interrupt,
    memory::{WritesOf, row_bytes},
};

/// Most rows for which place is made at once.
const ROWS_AHEAD: usize = 20_000;

/// How batches are added.
#[derive(Clone, Copy)]
pub(super) struct Adding {
    pub(super) writes: WritesOf,
    /// How many rows a write has room for.
    pub(super) rows_max: usize,
}

/// Batches that were projected and not written yet: the next write covers all of them.
pub(super) struct Ahead<P: Projection, D> {
    pub(super) touched: P::Touched,
    pub(super) rows: Vec<RowChange<P::Write>>,
    pub(super) set_aside: Vec<SetAside>,
    /// What rows were made from, in case the store refuses some: then it is projected again without them.
    pub(super) sources: Vec<Source<D>>,
    pub(super) tally: Tally,
    /// When the first of them was added.
    pub(super) since: Option<Instant>,
}

/// What is being written: everything that was projected up to some moment.
pub(super) struct Round<P: Projection, D> {
    /// Where the last write of it takes the lane.
    pub(super) reach: Progress,
    /// What is left of it to be written.
    pub(super) ahead: Ahead<P, D>,
}

/// A batch and how to decode it.
pub(super) struct Source<D> {
    pub(super) taken: Taken,
    pub(super) decode: D,
}

/// What a write will have counted once it is taken.
#[derive(Default)]
pub(super) struct Tally {
    /// Of the events taken and set aside, by which the time until they are visible is told.
    pub(super) recorded_at: Vec<TimestampMs>,
    pub(super) duplicates: u64,
    /// What all of it takes of memory until the write is taken, by the rules of `memory`; of states that are written in
    /// pieces, what it takes until its piece is made.
    pub(super) write_bytes: usize,
}

impl Tally {
    /// A piece took states, so that `after` of `before` entities are left: what is taken next has their room.
    pub(super) fn give_back(&mut self, before: usize, after: usize) {
        let times = self.recorded_at.len() * size_of::<TimestampMs>();
        let states = self.write_bytes.saturating_sub(times);
        self.write_bytes = times + (states as f64 * after as f64 / before.max(1) as f64) as usize;
    }
}

impl<P: Projection, D> Default for Ahead<P, D> {
    fn default() -> Self {
        Self {
            touched: P::Touched::default(),
            rows: Vec::new(),
            set_aside: Vec::new(),
            sources: Vec::new(),
            tally: Tally::default(),
            since: None,
        }
    }
}

impl<P: Projection, D> Ahead<P, D> {
    /// Whether nothing was taken, not even a duplicate.
    pub(super) fn is_empty(&self) -> bool {
        self.tally.recorded_at.is_empty() && self.tally.duplicates == 0
    }

    /// How many entities, rows and set-asides there are to write.
    pub(super) fn items(&self, projection: &P) -> usize {
        projection.touched_entities(&self.touched) + self.rows.len() + self.set_aside.len()
    }

    /// Adds a batch; by how many bytes the cache grew. Records are kept only where the store may refuse rows made from
    /// them, and where they are set aside.
    pub(super) fn add(
        &mut self,
        projection: &P,
        cache: &mut P::Cache,
        source: Source<D>,
        projected: Projected<P::Write, P::Pending>,
        Adding { writes, rows_max }: Adding,
    ) -> isize {
        let Projected { pending, rows, set_aside } = projected;
        let Source { taken, .. } = &source;
        self.since.get_or_insert_with(Instant::now);
        let (aside, tally) = (self.set_aside.len(), &mut self.tally);
        let recorded_before = tally.recorded_at.len();
        tally.duplicates += taken.duplicate.iter().filter(|duplicate| **duplicate).count() as u64;
        tally.recorded_at.extend(taken.fresh().iter().map(|record| record.timestamp));
        tally.write_bytes += (tally.recorded_at.len() - recorded_before) * size_of::<TimestampMs>();
        let grown = projection.fold_ahead(cache, &mut self.touched, pending);
        tally.write_bytes = tally.write_bytes.saturating_add_signed(match writes {
            WritesOf::StatesInPieces => grown.touched_bytes,
            WritesOf::States | WritesOf::Rows => grown.write_bytes,
        });
        // On their own: a record is a part of a larger piece of memory, which would stay for the sake of one record.
        self.set_aside
            .extend(set_aside.into_iter().map(|aside| SetAside { record: aside.record.detached(), ..aside }));
        tally.write_bytes += self.set_aside[aside..].iter().map(set_aside_bytes).sum::<usize>();
        if !rows.is_empty() {
            tally.write_bytes +=
                row_bytes::<P::Write>(rows.len(), taken.records.iter().map(Record::size_bytes).sum());
            match self.rows.is_empty() {
                true => self.rows = rows,
                false => {
                    // At once, and not by doubling again and again: rows are large, and there are many.
                    self.rows
                        .reserve(rows_max.saturating_sub(self.rows.len()).min(ROWS_AHEAD).max(rows.len()));
                    self.rows.extend(rows);
                }
            }
            self.sources.push(source);
        }
        grown.cached_bytes
    }
}

/// What an event that is set aside takes until its ledger entry is written.
fn set_aside_bytes(aside: &SetAside) -> usize {
    let SetAside { record, reject, event_type } = aside;
    record.size_bytes() + 2 * reject.detail.len() + event_type.as_ref().map_or(0, String::len) + 256
}

/// A write under way, on a task of its own: projecting goes on meanwhile.
pub(super) struct Flight<W, D> {
    task: AbortOnDropHandle<Landed<W>>,
    pub(super) sources: Vec<Source<D>>,
    pub(super) tally: Tally,
}

/// What became of a write.
pub(super) struct Landed<W> {
    pub(super) unit: UnitOfWork<W>,
    pub(super) outcome: Result<Commit, Interrupt>,
}

impl<W: Send + 'static, D> Flight<W, D> {
    /// Starts it.
    pub(super) fn start(
        write: impl Future<Output = Landed<W>> + Send + 'static,
        sources: Vec<Source<D>>,
        tally: Tally,
    ) -> Self {
        Self { task: AbortOnDropHandle::new(tokio::spawn(write)), sources, tally }
    }

    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// When it panicked: a bug of the sink.
    pub(super) async fn landed(&mut self) -> Result<Landed<W>, Interrupt> {
        (&mut self.task)
            .await
            .map_err(|error| Interrupt::Permanent(format!("writing: {error}: this is a bug")))
    }
}

/// The first and the last offset of a batch.
pub(super) fn offsets(taken: &Taken) -> (i64, i64) {
    let offset = |record: Option<&Record>| record.map_or(0, |record| record.offset);
    (offset(taken.records.first()), offset(taken.records.last()))
}

#[cfg(test)]
#[path = "ahead/tests.rs"]
mod tests;
