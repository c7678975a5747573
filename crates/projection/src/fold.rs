//! A fold projector as a projection: events of an entity become its state, a whole batch at a time.

use std::collections::HashMap;

use fleetlog_event::{Decode, EntityKey, EventSet, Recorded, Reject};
use indexmap::IndexSet;

use crate::{
    BadState, EntityChange, FoldProjector, Grown, LaneScope, Projected, Projection, Record, Rulings,
    SetAside, StoredState, Version,
    mutant::{Mutant, on},
    projection::{key_of, read_event, refused},
    weight::json_bytes,
};

/// Drives a [`FoldProjector`].
#[derive(Debug)]
pub struct Fold<P> {
    projector: P,
    cached_entities_max: usize,
}

/// How many entities' states a lane keeps by default.
const CACHED_ENTITIES_MAX: usize = 50_000;

impl<P: FoldProjector> Fold<P> {
    /// A fold with the default bound of its cache.
    ///
    /// # Panics
    /// When the events lie on more than one topic: their order would not be defined.
    #[must_use]
    pub fn new(projector: P) -> Self {
        assert_eq!(P::Event::TOPICS.len(), 1, "fold `{}`: its events must lie on one topic", P::ID);
        Self { projector, cached_entities_max: CACHED_ENTITIES_MAX }
    }

    /// Bounds the number of entities whose states a lane keeps between batches.
    #[must_use]
    pub fn with_cached_entities_max(self, cached_entities_max: usize) -> Self {
        Self { cached_entities_max, ..self }
    }
}

/// States of a lane's entities; none where the store has none.
pub type FoldCache<S> = HashMap<EntityKey, Option<(Version, S)>>;

/// New states of a batch.
pub type FoldPending<S> = Vec<(EntityKey, Version, S)>;

impl<P: FoldProjector> Projection for Fold<P> {
    type Write = P::Write;
    type Cache = FoldCache<P::State>;
    type Pending = FoldPending<P::State>;
    type Touched = IndexSet<EntityKey>;

    fn id(&self) -> &'static str {
        P::ID
    }
    fn version(&self) -> u32 {
        P::VERSION
    }
    fn topics(&self) -> &'static [&'static str] {
        P::Event::TOPICS
    }

    fn missing(&self, cache: &Self::Cache, records: &[&Record]) -> Vec<(EntityKey, String)> {
        let mut missing = HashMap::new();
        for record in records {
            if let Some(key) = record.key_text()
                && !cache.contains_key(key)
                && !missing.contains_key(key)
            {
                let key = EntityKey::from(key);
                let home = self.projector.home(&key);
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
            cache.insert(key, None);
            return Ok(entry_bytes);
        };
        if (version.log, version.partition) != (scope.log, scope.partition) {
            return Err(BadState::OtherLog {
                home: self.projector.home(&key),
                found: format!("{}/{}", version.log, version.partition),
                expected: format!("{}/{}", scope.log, scope.partition),
            });
        }
        let state: P::State = serde_json::from_slice(&state)
            .map_err(|source| BadState::Unreadable { home: self.projector.home(&key), source })?;
        let state_bytes = json_bytes(&state);
        cache.insert(key, Some((version, state)));
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
        let (mut cached, mut write) = (Balance::default(), Balance::default());
        for (key, version, state) in pending {
            let is_new = !touched.contains(&key);
            if is_new {
                touched.insert(key.clone());
            }
            let (entry_bytes, state_bytes) = (Self::entry_bytes(&key), json_bytes(&state));
            cached.gained += entry_bytes + state_bytes;
            write.gained += change_bytes(state_bytes);
            let before = cache.insert(key, Some((version, state)));
            let bytes_before =
                before.as_ref().map(|known| known.as_ref().map_or(0, |(_, state)| json_bytes(state)));
            cached.lost += bytes_before.map_or(0, |state_bytes| entry_bytes + state_bytes);
            if !is_new {
                write.lost += change_bytes(bytes_before.unwrap_or_default());
            }
        }
        Grown { cached_bytes: cached.sum(), write_bytes: write.sum() }
    }

    fn touched_entities(&self, touched: &Self::Touched) -> usize {
        touched.len()
    }

    fn changes(&self, cache: &Self::Cache, touched: Self::Touched) -> Vec<EntityChange<P::Write>> {
        let known = touched.into_iter().filter_map(|key| {
            let (version, state) = cache.get(&key)?.as_ref()?;
            Some(self.change(key, *version, state))
        });
        known.collect()
    }

    fn tidy(&self, cache: &mut Self::Cache) {
        if cache.len() > self.cached_entities_max {
            // Cheaper than tracking use: what is needed again is read again, in one call a batch.
            cache.clear();
        }
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

/// What an entity takes while it is written, whose state has `state_bytes` of JSON: the JSON, and the fields that people
/// read, each a name and a text with their places in the list of writes. (Not the calls that carry them: a sink bounds
/// those.) An estimate, by what a hash of twenty fields is made of.
fn change_bytes(state_bytes: usize) -> usize {
    const CHANGE_BYTES_MIN: usize = 1024;
    CHANGE_BYTES_MIN + 4 * state_bytes
}

impl<P: FoldProjector> Fold<P> {
    /// What an entity takes in the cache beside what its state points to: place, key, and the allocator's share.
    fn entry_bytes(key: &EntityKey) -> usize {
        size_of::<(EntityKey, Option<(Version, P::State)>)>() + 2 * key.as_str().len()
    }

    fn change(&self, key: EntityKey, version: Version, state: &P::State) -> EntityChange<P::Write> {
        let mut writes = Vec::new();
        self.projector.writes(&key, state, &mut writes);
        EntityChange {
            home: self.projector.home(&key),
            key,
            version,
            state: encode_state(P::ID, state),
            writes,
        }
    }
}

/// A state is plain data with text keys and finite numbers, so it always has a JSON form; that it has not is a bug of
/// the projector, and a panic in a projector is Permanent.
fn encode_state<S: serde::Serialize>(id: &str, state: &S) -> Vec<u8> {
    serde_json::to_vec(state)
        .unwrap_or_else(|error| panic!("fold `{id}`: its state has no JSON form: {error}"))
}

/// An entity under work in a batch.
struct Work<S> {
    key: EntityKey,
    version: Version,
    state: S,
    /// Indexes of the records applied in this batch.
    taken: Vec<usize>,
    /// An event of this entity was rejected in this batch: from then on each event works on a copy.
    careful: bool,
}

struct Touched<S> {
    works: Vec<Work<S>>,
    by_key: HashMap<EntityKey, usize>,
}

impl<S> Default for Touched<S> {
    fn default() -> Self {
        Self { works: Vec::new(), by_key: HashMap::new() }
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
        let key = key_of(record).map_err(|reject| (reject, None))?;
        let slot = self.slot(&key);
        let is_covered = record.offset < self.touched.works[slot].version.next;
        if is_covered && !on(Mutant::CoveredTakenAgain) {
            return Ok(());
        }
        let event = read_event::<D, P::Event>(self.scope, self.decode, record, key)?;
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
        let projector = &self.fold.projector;
        let work = &mut self.touched.works[slot];
        if work.careful {
            let mut copy = work.state.clone();
            projector.apply(&mut copy, event)?;
            work.state = copy;
            return Ok(());
        }
        let Err(reject) = projector.apply(&mut work.state, event) else { return Ok(()) };
        work.careful = true;
        let mut state = match self.cache.get(&work.key) {
            Some(Some((_, state))) => state.clone(),
            _ => P::State::default(),
        };
        for &index in &work.taken {
            // Taken once, so it decodes and applies again: both are pure.
            if let Ok(again) =
                read_event::<D, P::Event>(self.scope, self.decode, records[index], work.key.clone())
            {
                let redone = projector.apply(&mut state, &again);
                debug_assert!(redone.is_ok(), "fold `{}` is not pure", P::ID);
            }
        }
        self.touched.works[slot].state = state;
        Err(reject)
    }

    fn slot(&mut self, key: &EntityKey) -> usize {
        if let Some(&slot) = self.touched.by_key.get(key) {
            return slot;
        }
        let (version, state) = match self.cache.get(key) {
            Some(Some((version, state))) => (*version, state.clone()),
            _ => {
                let (log, partition) = (self.scope.log, self.scope.partition);
                (Version { log, partition, next: 0, revision: 0 }, P::State::default())
            }
        };
        let slot = self.touched.works.len();
        let work = Work { key: key.clone(), version, state, taken: Vec::new(), careful: false };
        self.touched.works.push(work);
        self.touched.by_key.insert(key.clone(), slot);
        slot
    }
}

#[cfg(test)]
mod tests;
