//! Folding entities anew from the log: with an event in its place that was set aside before, or only because somebody
//! asks for it. The same code says what a redrive would come to, without writing anything.
//!
//! What is folded is the log as every lane sees it: duplicates dropped, without what the ledger names, in log order. Where
//! retention has cut the log, it is folded without the event as well: only if that gives what is stored does the log still
//! tell all there is to know.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use bytes::Bytes;
use fleetlog_event::{Decode, EntityKey, LogId, Reason, Reject};
use fleetlog_projection::{
    DedupWindow, EntityChange, LaneScope, Projected, Projection, Record, Rulings, SetAside, StoredState,
};
use serde_json::Value;

use crate::{
    Failure,
    ports::{LogPart, Logs, Piece, Schemas},
};

/// Events of one entity that were taken before and that folding it anew may reject: more are no accident.
const REJECTED_MAX: usize = 1_000;

/// Some entities of a lane, folded anew up to some offset of their log.
pub(crate) struct Refold<P: Projection> {
    keys: Arc<HashSet<Bytes>>,
    /// Records that are to be taken in their places, though the ledger names them.
    placed: BTreeMap<i64, Record>,
    with: Side<P>,
    /// Without what is placed; only where the log does not begin at 0.
    without: Option<Side<P>>,
    dedup: DedupWindow,
    rejected: BTreeMap<i64, SetAside>,
    /// How many of each entity that are not placed.
    others: HashMap<Bytes, usize>,
    /// Where the log begins.
    low: i64,
    /// Everything below is folded.
    upto: i64,
}

/// What is folded.
struct Side<P: Projection> {
    cache: P::Cache,
    touched: P::Touched,
}

impl<P: Projection> Default for Side<P> {
    fn default() -> Self {
        Self { cache: P::Cache::default(), touched: P::Touched::default() }
    }
}

impl<P: Projection> Side<P> {
    /// Folds records but for those named; what is rejected.
    fn fold<D: Decode>(
        &mut self,
        (projection, scope, decode): (&P, &LaneScope, &D),
        records: &[&Record],
        named: BTreeSet<i64>,
    ) -> Vec<SetAside> {
        let rulings = Rulings { named, ..Rulings::default() };
        let Projected { pending, set_aside, .. } =
            projection.project(scope, decode, records, &rulings, &self.cache);
        let _ = projection.fold_ahead(&mut self.cache, &mut self.touched, pending);
        set_aside
    }

    fn changes(mut self, projection: &P) -> HashMap<EntityKey, EntityChange<P::Write>> {
        let changes = projection.changes(&mut self.cache, &mut self.touched, usize::MAX);
        changes.into_iter().map(|change| (change.key.clone(), change)).collect()
    }
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

/// Why entities could not be folded.
#[derive(Debug)]
pub(crate) enum RefoldError {
    /// What was tried: it can be tried again.
    Failed(Failure),
    /// The projector panicked on some event of them.
    Panicked,
}

impl From<Failure> for RefoldError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What came of it.
pub(crate) struct Refolded<W> {
    /// The entities of which there is something, as they are to be written: with no revision yet.
    changes: HashMap<EntityKey, EntityChange<W>>,
    /// The same without what was placed, if the log is cut.
    without: Option<HashMap<EntityKey, EntityChange<W>>>,
    /// Events that were not taken: those that were to be in their places, and such as were taken before.
    rejected: BTreeMap<i64, SetAside>,
    others: HashMap<Bytes, usize>,
    low: i64,
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
            with: Side::default(),
            without: None,
            dedup: DedupWindow::new(dedup_span_offsets),
            rejected: BTreeMap::new(),
            others: HashMap::new(),
            low: 0,
            upto: i64::MIN,
        }
    }

    /// Whether there is no entity to fold.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Up to where it is folded; below 0 if it was not begun.
    pub(crate) fn upto(&self) -> i64 {
        self.upto
    }

    /// Folds on, up to `to`, without what `not_taken` names. After a failure it can be called again. Cancel-safe, but for
    /// what was found since the last piece.
    ///
    /// # Errors
    /// What was tried, or a panic of the projector.
    pub(crate) async fn on<C: Schemas>(
        &mut self,
        means: &Means<'_, P, C>,
        to: i64,
        not_taken: &BTreeSet<i64>,
    ) -> Result<(), RefoldError> {
        if self.upto >= to || self.is_empty() {
            return Ok(());
        }
        let (topic, partition) = (means.topic.to_owned(), means.scope.partition);
        let part = LogPart { topic, partition, from: self.upto.max(0), to };
        let mut pieces = means.logs.search(part, Arc::clone(&self.keys));
        while let Some(piece) = pieces.recv().await {
            self.take(means, piece?, not_taken).await?;
        }
        if self.upto >= to {
            Ok(())
        } else {
            Err(Failure::transient("the search of the log broke off").into())
        }
    }

    async fn take<C: Schemas>(
        &mut self,
        means: &Means<'_, P, C>,
        piece: Piece,
        not_taken: &BTreeSet<i64>,
    ) -> Result<(), RefoldError> {
        if self.upto < 0 || piece.from > self.upto {
            self.begin(piece.from);
        }
        let records = self.with_placed(piece.records, piece.next);
        let refs: Vec<&Record> = records.iter().collect();
        let decode = means.schemas.prepare(&refs).await?;
        // From here on nothing fails that could be tried again: the window learns each record once.
        let duplicate = self.dedup.sift(&records, |record| means.schemas.event_id(record.value.as_deref()));
        let fresh = records.iter().zip(duplicate).filter(|(_, duplicate)| !duplicate);
        let fresh: Vec<&Record> = fresh.map(|(record, _)| record).collect();
        let is_placed = |offset: &i64| self.placed.contains_key(offset);
        let offsets = fresh.iter().map(|record| record.offset);
        let named: BTreeSet<i64> = offsets.filter(|offset| not_taken.contains(offset)).collect();
        let taking = named.iter().copied().filter(|offset| !is_placed(offset)).collect();
        let leaving = named.iter().chain(self.placed.keys()).copied().collect();
        let by = (means.projection, &means.scope, &decode);
        let (with, without) = (&mut self.with, &mut self.without);
        let set_aside = std::panic::catch_unwind(AssertUnwindSafe(|| {
            if let Some(without) = without {
                without.fold(by, &fresh, leaving);
            }
            with.fold(by, &fresh, taking)
        }));
        self.reject(set_aside.map_err(|_| RefoldError::Panicked)?);
        self.upto = piece.next;
        Ok(())
    }

    /// Begins where the log does: for the first time, or because retention took what was to come next.
    fn begin(&mut self, low: i64) {
        let dedup = DedupWindow::new(self.dedup.span_offsets());
        (self.with, self.without) = (Side::default(), (low > 0).then(Side::default));
        (self.dedup, self.low, self.upto) = (dedup, low, i64::MIN);
        self.rejected.clear();
        self.others.clear();
    }

    /// Remembers what is rejected, each for itself: a record is a part of a larger piece of memory.
    fn reject(&mut self, set_aside: Vec<SetAside>) {
        for aside in set_aside {
            let offset = aside.record.offset;
            if !self.placed.contains_key(&offset) {
                let key = aside.record.key.as_deref().map_or_else(Bytes::new, Bytes::copy_from_slice);
                let count = self.others.entry(key).or_default();
                *count += 1;
                if *count > REJECTED_MAX {
                    continue;
                }
            }
            self.rejected.insert(offset, SetAside { record: aside.record.detached(), ..aside });
        }
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
    pub(crate) fn finish(self, projection: &P) -> Refolded<P::Write> {
        Refolded {
            changes: self.with.changes(projection),
            without: self.without.map(|without| without.changes(projection)),
            rejected: self.rejected,
            others: self.others,
            low: self.low,
        }
    }
}

impl<W> Refolded<W> {
    /// One entity of it, with what is stored and which of its events are redriven.
    pub(crate) fn take(
        &mut self,
        key: &EntityKey,
        stored: Option<StoredState>,
        offsets: Vec<i64>,
    ) -> Anew<W> {
        let is_own = |aside: &SetAside| aside.record.key_text() == Some(key.as_str());
        let rejected = self.rejected.iter().filter(|(_, aside)| is_own(aside));
        let without = self.without.as_mut().map(|without| without.remove(key));
        Anew {
            change: self.changes.remove(key),
            without,
            rejected: rejected.map(|(offset, aside)| (*offset, aside.clone())).collect(),
            others: self.others.get(key.as_str().as_bytes()).copied().unwrap_or_default(),
            low: self.low,
            stored,
            offsets,
        }
    }
}

/// An entity folded anew.
pub(crate) struct Anew<W> {
    pub(crate) change: Option<EntityChange<W>>,
    /// Without what is redriven, if the log is cut: that, or nothing.
    without: Option<Option<EntityChange<W>>>,
    stored: Option<StoredState>,
    /// Events of it that were not taken.
    pub(crate) rejected: BTreeMap<i64, SetAside>,
    /// How many of them were taken before.
    others: usize,
    low: i64,
    /// Those that are redriven.
    pub(crate) offsets: Vec<i64>,
}

impl<W> Anew<W> {
    /// With its revision; or why it cannot stand in the place of what is stored, which must neither become older nor lose
    /// what only it knows.
    pub(crate) fn placed(mut self, log: &LogId) -> (Self, Option<Reject>) {
        let stored = self.stored.as_ref().map(|stored| stored.version).filter(|stored| stored.log == *log);
        if self.others > REJECTED_MAX {
            let detail = format!(
                "folded anew, {} events would be rejected that were taken: rebuild the projection",
                self.others
            );
            return (self, Some(Reject::new(Reason::NoPlace, detail)));
        }
        let all_rejected = self.offsets.iter().all(|offset| self.rejected.contains_key(offset));
        if all_rejected && !self.offsets.is_empty() {
            // Nothing that is redriven is taken, so nothing of the entity is to be changed.
            self.change = None;
            return (self, None);
        }
        if let Some(why_not) = self.is_cut() {
            return (self, Some(why_not));
        }
        match (&mut self.change, stored) {
            (Some(change), stored) if stored.is_none_or(|stored| change.version.next >= stored.next) => {
                change.version.revision = stored.map_or(0, |stored| stored.revision) + 1;
                (self, None)
            }
            (_, Some(stored)) => {
                let detail = format!(
                    "what the entity took last (offset {}) is gone from the log, or would be rejected now: folded anew it \
                     would become older",
                    stored.next - 1
                );
                (self, Some(Reject::new(Reason::NoPlace, detail)))
            }
            (_, None) => (self, None),
        }
    }

    /// Why the log, cut by retention, does not tell enough of the entity.
    fn is_cut(&self) -> Option<Reject> {
        let without = self.without.as_ref()?;
        let no_place = |what: &str| {
            let detail = format!("the log begins at offset {}, {what}", self.low);
            Some(Reject::new(Reason::NoPlace, detail))
        };
        if self.offsets.iter().any(|offset| *offset < self.low) {
            return no_place("behind the event's: what followed it is gone");
        }
        let is_told = match (without, &self.stored) {
            (None, None) => true,
            (Some(told), Some(stored)) => {
                told.version.next == stored.version.next && is_same_json(&told.state, &stored.state)
            }
            _ => false,
        };
        if is_told { None } else { no_place("and does not tell all any more that is known of the entity") }
    }

    /// The events that were taken before, and are not any more.
    pub(crate) fn others(&self) -> Vec<SetAside> {
        let others = self.rejected.iter().filter(|(offset, _)| !self.offsets.contains(offset));
        others.map(|(_, aside)| aside.clone()).collect()
    }
}

fn is_same_json(one: &[u8], other: &[u8]) -> bool {
    let value = |json| serde_json::from_slice::<Value>(json).ok();
    value(one).is_some_and(|one| Some(one) == value(other))
}
