//! Folding entities anew from the log: with an event in its place that was set aside before, or only because somebody
//! asks for it. The same code says what a redrive would come to, without writing anything.
//!
//! What is folded is the log as every lane sees it: duplicates dropped, without what the ledger names, in log order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use bytes::Bytes;
use fleetlog_event::{EntityKey, LogId, Reason, Reject};
use fleetlog_projection::{
    DedupWindow, EntityChange, LaneScope, Projected, Projection, Record, Rulings, SetAside, Version,
};

use crate::{
    Failure,
    ports::{LogPart, Logs, Piece, Schemas},
};

/// Events that were taken before and that folding an entity anew may reject: more are no accident.
const REJECTED_MAX: usize = 1_000;

/// Some entities of a lane, folded anew up to some offset of their log.
pub(crate) struct Refold<P: Projection> {
    keys: Arc<HashSet<Bytes>>,
    /// Records that are to be taken in their places, though the ledger names them.
    placed: BTreeMap<i64, Record>,
    cache: P::Cache,
    touched: P::Touched,
    dedup: DedupWindow,
    rejected: Vec<SetAside>,
    /// Everything below is folded.
    upto: i64,
}

/// What a search of the log needs.
pub(crate) struct Means<'a, P, C> {
    pub(crate) projection: &'a P,
    pub(crate) schemas: &'a C,
    pub(crate) logs: &'a dyn Logs,
    /// The topic's physical name.
    pub(crate) topic: &'a str,
    pub(crate) scope: LaneScope,
}

/// What came of it.
pub(crate) struct Refolded<W> {
    /// The entities of which there is something, as they are to be written: with no revision yet.
    pub(crate) changes: HashMap<EntityKey, EntityChange<W>>,
    /// Events that were not taken: those that were to be in their places, and such as were taken before.
    pub(crate) rejected: BTreeMap<i64, SetAside>,
}

impl<P: Projection> Refold<P> {
    /// Nothing folded yet, of these entities with these records in their places.
    pub(crate) fn new(
        keys: impl IntoIterator<Item = EntityKey>,
        placed: impl IntoIterator<Item = Record>,
        dedup_span_offsets: i64,
    ) -> Self {
        let keys = keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_str().as_bytes()));
        Self {
            keys: Arc::new(keys.collect()),
            placed: placed.into_iter().map(|record| (record.offset, record)).collect(),
            cache: P::Cache::default(),
            touched: P::Touched::default(),
            dedup: DedupWindow::new(dedup_span_offsets),
            rejected: Vec::new(),
            upto: i64::MIN,
        }
    }

    /// Up to where it is folded.
    pub(crate) fn upto(&self) -> i64 {
        self.upto
    }

    /// Folds on, up to `to`, without what `not_taken` names. After a failure it can be called again.
    ///
    /// # Errors
    /// What was tried, Transient or Permanent; a panic of the projector is Permanent.
    pub(crate) async fn on<C: Schemas>(
        &mut self,
        means: &Means<'_, P, C>,
        to: i64,
        not_taken: &BTreeSet<i64>,
    ) -> Result<(), Failure> {
        if self.upto >= to {
            return Ok(());
        }
        let (topic, partition) = (means.topic.to_owned(), means.scope.partition);
        let part = LogPart { topic, partition, from: self.upto.max(0), to };
        let mut pieces = means.logs.search(part, Arc::clone(&self.keys));
        while let Some(piece) = pieces.recv().await {
            self.take(means, piece?, not_taken).await?;
        }
        if self.upto >= to { Ok(()) } else { Err(Failure::transient("the search of the log broke off")) }
    }

    async fn take<C: Schemas>(
        &mut self,
        means: &Means<'_, P, C>,
        piece: Piece,
        not_taken: &BTreeSet<i64>,
    ) -> Result<(), Failure> {
        let records = self.with_placed(piece.records, piece.next);
        let refs: Vec<&Record> = records.iter().collect();
        let decode = means.schemas.prepare(&refs).await?;
        // From here on nothing fails that could be tried again: the window learns each record once.
        let duplicate = self.dedup.sift(&records, |record| means.schemas.event_id(record.value.as_deref()));
        let fresh: Vec<&Record> = records
            .iter()
            .zip(duplicate)
            .filter(|(_, duplicate)| !duplicate)
            .map(|(record, _)| record)
            .collect();
        let named = fresh.iter().map(|record| record.offset);
        let named = named.filter(|offset| not_taken.contains(offset) && !self.placed.contains_key(offset));
        let rulings = Rulings { named: named.collect(), refused: BTreeMap::new() };
        let Means { projection, scope, .. } = means;
        let (cache, touched) = (&mut self.cache, &mut self.touched);
        let folded = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let Projected { pending, set_aside, .. } =
                projection.project(scope, &decode, &fresh, &rulings, cache);
            let _ = projection.fold_ahead(cache, touched, pending);
            set_aside
        }));
        let what = || format!("`{}` panicked while entities were folded anew: a bug", projection.id());
        let set_aside = folded.map_err(|_| Failure::permanent(what()))?;
        self.rejected
            .extend(set_aside.into_iter().map(|aside| SetAside { record: aside.record.detached(), ..aside }));
        self.upto = piece.next;
        Ok(())
    }

    /// What was found in the log, with those to be placed that retention has deleted there.
    fn with_placed(&self, found: Vec<Record>, next: i64) -> Vec<Record> {
        let placed = self.placed.range(self.upto..next.max(self.upto));
        let mut records: BTreeMap<i64, Record> =
            placed.map(|(offset, record)| (*offset, record.clone())).collect();
        records.extend(found.into_iter().map(|record| (record.offset, record)));
        records.into_values().collect()
    }

    /// The end of it.
    pub(crate) fn finish(mut self, projection: &P) -> Refolded<P::Write> {
        let changes = projection.changes(&mut self.cache, &mut self.touched, usize::MAX);
        Refolded {
            changes: changes.into_iter().map(|change| (change.key.clone(), change)).collect(),
            rejected: self.rejected.into_iter().map(|aside| (aside.record.offset, aside)).collect(),
        }
    }
}

/// An entity folded anew.
pub(crate) struct Anew<W> {
    pub(crate) change: Option<EntityChange<W>>,
    /// The version that is stored.
    pub(crate) stored: Option<Version>,
    /// Events of it that were not taken.
    pub(crate) rejected: BTreeMap<i64, SetAside>,
    /// Those that are redriven.
    pub(crate) offsets: Vec<i64>,
}

impl<W> Anew<W> {
    /// With its revision; or why it cannot stand in the place of what is stored, which must not become older.
    pub(crate) fn placed(mut self, log: &LogId) -> (Self, Option<Reject>) {
        let stored = self.stored.filter(|stored| stored.log == *log);
        let others = self.others().len();
        let no_place = |detail: String| Some(Reject::new(Reason::NoPlace, detail));
        let why_not = match (&mut self.change, stored) {
            _ if others > REJECTED_MAX => no_place(format!(
                "folded anew, {others} events would be rejected that were taken: rebuild the projection"
            )),
            (None, Some(_)) if self.offsets.iter().all(|offset| self.rejected.contains_key(offset)) => {
                // Nothing that is redriven is taken, so nothing of the entity is to be changed.
                return (self, None);
            }
            (Some(change), Some(stored)) if change.version.next < stored.next => no_place(format!(
                "what the entity took last (offset {}) is gone from the log, or would be rejected now: it cannot be \
                 folded anew without becoming older",
                stored.next - 1
            )),
            (Some(change), stored) => {
                change.version.revision = stored.map_or(0, |stored| stored.revision) + 1;
                None
            }
            (None, _) => None,
        };
        (self, why_not)
    }

    /// The events that were taken before, and are not any more.
    pub(crate) fn others(&self) -> Vec<SetAside> {
        let others = self.rejected.iter().filter(|(offset, _)| !self.offsets.contains(offset));
        others.map(|(_, aside)| aside.clone()).collect()
    }
}
