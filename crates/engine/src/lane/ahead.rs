//! What a lane has projected ahead of the write that is under way, and that write.

use fleetlog_event::TimestampMs;
use fleetlog_projection::{Commit, Projected, Projection, Record, RowChange, SetAside, Taken, UnitOfWork};
use tokio_util::task::AbortOnDropHandle;

use crate::fault::Interrupt;

/// Batches that were projected and not written yet: the next write covers all of them.
pub(super) struct Ahead<P: Projection, D> {
    pub(super) touched: P::Touched,
    pub(super) rows: Vec<RowChange<P::Write>>,
    pub(super) set_aside: Vec<SetAside>,
    /// What rows were made from, in case the store refuses some: then it is projected again without them.
    pub(super) sources: Vec<Source<D>>,
    pub(super) tally: Tally,
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
    /// Bytes of records that are held until the write is taken.
    pub(super) held_bytes: usize,
}

impl<P: Projection, D> Default for Ahead<P, D> {
    fn default() -> Self {
        Self {
            touched: P::Touched::default(),
            rows: Vec::new(),
            set_aside: Vec::new(),
            sources: Vec::new(),
            tally: Tally::default(),
        }
    }
}

impl<P: Projection, D> Ahead<P, D> {
    /// Whether nothing was taken, not even a duplicate.
    pub(super) fn is_empty(&self) -> bool {
        self.tally.recorded_at.is_empty() && self.tally.duplicates == 0
    }

    /// How much of a batch's limit is used up: entities, rows and set-asides to write, and bytes held for them.
    pub(super) fn size(&self, projection: &P) -> (usize, usize) {
        let items = projection.touched_entities(&self.touched) + self.rows.len() + self.set_aside.len();
        (items, self.tally.held_bytes)
    }

    /// Adds a batch; how many bytes of its records stay held. They are kept only where the store may refuse rows made
    /// from them, and where they are set aside.
    pub(super) fn add(
        &mut self,
        projection: &P,
        cache: &mut P::Cache,
        source: Source<D>,
        projected: Projected<P::Write, P::Pending>,
    ) -> usize {
        let Projected { pending, rows, set_aside } = projected;
        let Source { taken, .. } = &source;
        self.tally.duplicates += taken.duplicate.iter().filter(|duplicate| **duplicate).count() as u64;
        self.tally.recorded_at.extend(taken.fresh().iter().map(|record| record.timestamp));
        let all: usize = taken.records.iter().map(Record::size_bytes).sum();
        let aside: usize = set_aside.iter().map(|aside| aside.record.size_bytes()).sum();
        let held = if rows.is_empty() { aside } else { all };
        projection.fold_ahead(cache, &mut self.touched, pending);
        self.set_aside.extend(set_aside);
        if !rows.is_empty() {
            self.rows.extend(rows);
            self.sources.push(source);
        }
        self.tally.held_bytes += held;
        held
    }
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
