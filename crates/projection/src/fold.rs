//! A fold projector as a projection: events of an entity become its state, a whole batch at a time.

mod known;

use std::collections::HashMap;

use fleetlog_event::{Decode, EntityKey, EventSet, Recorded, Reject};
use foldhash::fast::RandomState;
use indexmap::IndexSet;

use crate::{
    BadState, EntityChange, FoldProjector, Grown, LaneScope, Projected, Projection, Record, Rulings,
    SetAside, StoredState, Version,
    mutant::{Mutant, on},
    projection::{key_text_of, read_event_for, refused},
    weight::json_bytes,
};

pub use known::Known;

/// Drives a [`FoldProjector`].
#[derive(Debug)]
pub struct Fold<P>(P);

impl<P: FoldProjector> Fold<P> {
    /// A fold.
    ///
    /// # Panics
    /// When the events lie on more than one topic: their order would not be defined.
    #[must_use]
    pub fn new(projector: P) -> Self {
        assert_eq!(P::Event::TOPICS.len(), 1, "fold `{}`: its events must lie on one topic", P::ID);
        Self(projector)
    }
}

/// What a lane knows of its entities.
pub type FoldCache<S> = HashMap<EntityKey, Known<S>, RandomState>;

/// New states of a batch. In boxes: they are handed on several times, and a state is of some size.
pub type FoldPending<S> = Vec<(EntityKey, Version, Box<S>)>;

impl<P: FoldProjector> Projection for Fold<P> {
    type Write = P::Write;
    type Cache = FoldCache<P::State>;
    type Pending = FoldPending<P::State>;
    type Touched = IndexSet<EntityKey, RandomState>;

    fn id(&self) -> &'static str {
        P::ID
    }
    fn version(&self) -> u32 {
        P::VERSION
    }
    fn topics(&self) -> &'static [&'static str] {
        P::Event::TOPICS
    }

    fn home(&self, key: &EntityKey) -> Option<String> {
        Some(self.0.home(key))
    }
    fn forget_entity(&self, cache: &mut Self::Cache, key: &EntityKey) -> usize {
        cache.remove(key).map_or(0, |known| Self::entry_bytes(key) + known.state_bytes())
    }

    fn missing(&self, cache: &Self::Cache, records: &[&Record]) -> Vec<(EntityKey, String)> {
        let mut missing = HashMap::<EntityKey, String, RandomState>::default();
        for record in records {
            if let Some(key) = record.key_text()
                && !cache.contains_key(key)
                && !missing.contains_key(key)
            {
                let key = EntityKey::from(key);
                let home = self.0.home(&key);
                missing.insert(key, home);
            }
        }
        missing.into_iter().collect()
    }

    fn admit(
        &self,
        cache: &mut Self::Cache,
        scope: &LaneScope,
        key: EntityKey,
        stored: Option<StoredState>,
    ) -> Result<usize, BadState> {
        let entry_bytes = Self::entry_bytes(&key);
        let Some(StoredState { version, state }) = stored else {
            cache.insert(key, Known::Absent);
            return Ok(entry_bytes);
        };
        if (version.log, version.partition) != (scope.log, scope.partition) {
            return Err(BadState::OtherLog {
                home: self.0.home(&key),
                found: format!("{}/{}", version.log, version.partition),
                expected: format!("{}/{}", scope.log, scope.partition),
            });
        }
        let state: P::State = serde_json::from_slice(&state)
            .map_err(|source| BadState::Unreadable { home: self.0.home(&key), source })?;
        let state_bytes = json_bytes(&state);
        cache.insert(key, Known::read(version, Box::new(state), state_bytes));
        Ok(entry_bytes + state_bytes)
    }

    fn project<D: Decode>(
        &self,
        scope: &LaneScope,
        decode: &D,
        records: &[&Record],
        rulings: &Rulings,
        cache: &Self::Cache,
    ) -> Projected<P::Write, Self::Pending> {
        let mut batch = Batch { fold: self, scope, decode, rulings, cache, touched: Touched::default() };
        let mut set_aside = Vec::new();
        for (index, &record) in records.iter().enumerate() {
            if let Err((reject, event_type)) = batch.take(index, record, records) {
                set_aside.push(SetAside { record: record.clone(), reject, event_type });
            }
        }
        let taken = batch.touched.works.into_iter().filter(|work| !work.taken.is_empty());
        let pending = taken.map(|work| (work.key, work.version, work.state)).collect();
        Projected { pending, rows: Vec::new(), set_aside }
    }

    fn fold_ahead(
        &self,
        cache: &mut Self::Cache,
        touched: &mut Self::Touched,
        pending: Self::Pending,
    ) -> Grown {
        let (mut cached, mut touch, mut write) = (Balance::default(), Balance::default(), Balance::default());
        for (key, version, state) in pending {
            let is_new = !touched.contains(&key);
            if is_new {
                touched.insert(key.clone());
            }
            let (entry_bytes, state_bytes) = (Self::entry_bytes(&key), json_bytes(&state));
            cached.gained += entry_bytes + state_bytes;
            write.gained += change_bytes(state_bytes);
            touch.gained += if is_new { size_of::<P::State>() + state_bytes } else { 0 };
            let known = cache.get_mut(&key);
            let bytes_before = known.as_ref().map(|known| known.state_bytes());
            match known {
                Some(known) => known.fold(version, state, state_bytes),
                None => drop(cache.insert(key, Known::folded(version, state, state_bytes))),
            }
            cached.lost += bytes_before.map_or(0, |state_bytes| entry_bytes + state_bytes);
            if !is_new {
                write.lost += change_bytes(bytes_before.unwrap_or_default());
            }
        }
        Grown { cached_bytes: cached.sum(), touched_bytes: touch.sum(), write_bytes: write.sum() }
    }

    fn touched_entities(&self, touched: &Self::Touched) -> usize {
        touched.len()
    }

    fn changes(
        &self,
        cache: &mut Self::Cache,
        touched: &mut Self::Touched,
        bytes_max: usize,
    ) -> Vec<EntityChange<P::Write>> {
        let mut bytes = 0;
        let fits = |key: &&EntityKey| {
            // What went with an earlier write, after it was touched again, takes none.
            let known = cache.get(*key).filter(|known| !known.is_written());
            bytes += known.map_or(0, |known| change_bytes(known.state_bytes()));
            bytes <= bytes_max
        };
        let count = touched.iter().take_while(fits).count().max(1).min(touched.len());
        let known = touched.drain(..count).filter_map(|key| {
            let known = cache.get_mut(&key)?;
            known.change(&self.0, key)
        });
        known.collect()
    }

    fn forget(&self, cache: &mut Self::Cache, bytes: usize) -> usize {
        let all = cache.iter().map(|(key, known)| Self::entry_bytes(key) + known.state_bytes());
        let (all, mut forgotten, mut draw) = (all.sum::<usize>().max(1), 0, 0_u64);
        // Any of them, with the same chance for each, whatever the order in which they are needed again: what was used
        // longest ago is what a fleet that reports in turn needs next. Steps of the golden ratio are spread evenly.
        let share = u64::MAX / all as u64 * bytes.min(all) as u64;
        cache.retain(|key, known| {
            draw = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let keeps = draw > share || !known.is_written();
            forgotten += if keeps { 0 } else { Self::entry_bytes(key) + known.state_bytes() };
            keeps
        });
        forgotten
    }
}

/// What a sum gained and lost, in bytes.
#[derive(Default)]
struct Balance {
    gained: usize,
    lost: usize,
}

impl Balance {
    fn sum(&self) -> isize {
        self.gained.cast_signed() - self.lost.cast_signed()
    }
}

/// What an entity takes while it is written, whose state has `state_bytes` of JSON: the JSON, the state that was written
/// before, and the fields that people read, each a name and a text with their places in the list of writes. (Not the
/// calls that carry them: a sink bounds those.) An estimate, by what a hash of twenty fields is made of.
fn change_bytes(state_bytes: usize) -> usize {
    const CHANGE_BYTES_MIN: usize = 1024;
    CHANGE_BYTES_MIN + 5 * state_bytes
}

impl<P: FoldProjector> Fold<P> {
    /// What an entity takes in the cache beside what its state points to: place, key, and the allocator's share.
    fn entry_bytes(key: &EntityKey) -> usize {
        size_of::<(EntityKey, Known<P::State>)>() + size_of::<P::State>() + 2 * key.as_str().len()
    }
}

/// An entity under work in a batch.
struct Work<S> {
    key: EntityKey,
    version: Version,
    state: Box<S>,
    /// Indexes of the records applied in this batch.
    taken: Vec<usize>,
    /// An event of this entity was rejected in this batch: from then on each event works on a copy.
    careful: bool,
}

struct Touched<S> {
    works: Vec<Work<S>>,
    by_key: HashMap<EntityKey, usize, RandomState>,
}

impl<S> Default for Touched<S> {
    fn default() -> Self {
        Self { works: Vec::new(), by_key: HashMap::default() }
    }
}

struct Batch<'a, P: FoldProjector, D> {
    fold: &'a Fold<P>,
    scope: &'a LaneScope,
    decode: &'a D,
    rulings: &'a Rulings,
    cache: &'a FoldCache<P::State>,
    touched: Touched<P::State>,
}

type Rejected = (Reject, Option<String>);

impl<P: FoldProjector, D: Decode> Batch<'_, P, D> {
    /// Takes one record: nothing happens if it is named by the ledger or covered by its entity's version.
    fn take(&mut self, index: usize, record: &Record, records: &[&Record]) -> Result<(), Rejected> {
        if self.rulings.named.contains(&record.offset) {
            return Ok(());
        }
        let key = key_text_of(record).map_err(|reject| (reject, None))?;
        let slot = self.slot(key);
        let key = self.touched.works[slot].key.clone();
        let is_covered = record.offset < self.touched.works[slot].version.next;
        if is_covered && !on(Mutant::CoveredTakenAgain) {
            return Ok(());
        }
        let event = read_event_for::<D, P::Event>(P::ID, self.scope, self.decode, record, key)?;
        let typed = |reject| (reject, Some(event.event.event_type().name.to_owned()));
        if let Some(detail) = self.rulings.refused.get(&record.offset) {
            return Err(typed(refused(detail)));
        }
        self.apply(slot, &event, records).map_err(typed)?;
        let work = &mut self.touched.works[slot];
        work.taken.push(index);
        work.version.next = record.offset + 1;
        Ok(())
    }

    /// Applies an event so that a rejected one leaves no trace. Most batches hold no rejected event, so the state is
    /// worked on in place; when one is rejected, the state is made anew from the records taken before it, and from
    /// then on this entity's events work on copies.
    fn apply(&mut self, slot: usize, event: &Recorded<P::Event>, records: &[&Record]) -> Result<(), Reject> {
        let projector = &self.fold.0;
        let work = &mut self.touched.works[slot];
        if work.careful {
            let mut copy = P::State::clone(&work.state);
            projector.apply(&mut copy, event)?;
            *work.state = copy;
            return Ok(());
        }
        let Err(reject) = projector.apply(&mut work.state, event) else { return Ok(()) };
        work.careful = true;
        let known = self.cache.get(&work.key).and_then(Known::state);
        let mut state = known.map(|(_, state)| state.clone()).unwrap_or_default();
        for &index in &work.taken {
            // Taken once, so it decodes and applies again: both are pure.
            let (scope, decode, key) = (self.scope, self.decode, work.key.clone());
            if let Ok(again) = read_event_for::<D, P::Event>(P::ID, scope, decode, records[index], key) {
                let redone = projector.apply(&mut state, &again);
                debug_assert!(redone.is_ok(), "fold `{}` is not pure", P::ID);
            }
        }
        *self.touched.works[slot].state = state;
        Err(reject)
    }

    fn slot(&mut self, key: &str) -> usize {
        if let Some(&slot) = self.touched.by_key.get(key) {
            return slot;
        }
        let known = self.cache.get_key_value(key);
        let (version, state) = match known.and_then(|(_, known)| known.state()) {
            Some((version, state)) => (version, Box::new(state.clone())),
            None => {
                let (log, partition) = (self.scope.log, self.scope.partition);
                (Version { log, partition, next: 0, revision: 0 }, Box::default())
            }
        };
        let key = known.map_or_else(|| EntityKey::from(key), |(key, _)| key.clone());
        let slot = self.touched.works.len();
        let work = Work { key: key.clone(), version, state, taken: Vec::new(), careful: false };
        self.touched.works.push(work);
        self.touched.by_key.insert(key, slot);
        slot
    }
}

#[cfg(test)]
mod tests;
