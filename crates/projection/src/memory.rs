//! A sink in memory, with the chain as the Redis sink has it: a commit is several atomic steps, each on the chain.
//!
//! For tests of everything that stands on a sink (engine, projections, the conformance suite itself), so it has
//! hooks for what can go wrong with a store: lost replies, failures, refusals, outages and lost tails. Clones share
//! one store, as two processes would.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

mod world;

use fleetlog_event::LogId;

use crate::{
    Commit, EntityChange, Fault, HotWrite, LaneId, LedgerEntry, RefusedAt, Sink, SinkError, Stored,
    UnitOfWork, Verdict,
    mutant::{Mutant, on},
    parts::{Part, Parts, Standing},
};
pub use world::{LaneView, World};

/// Trouble with one call (read, or atomic step of a commit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails before the store saw it.
    FailBefore,
    /// The store carries it out; the caller sees a failure.
    LoseReply,
}

/// A moment in the life of a store that was made with [`MemorySink::with_history`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(usize);

struct Store<W> {
    now: World<W>,
    /// The world before each atomic step, if the store keeps its history.
    history: Option<Vec<World<W>>>,
    troubles: BTreeMap<u64, Trouble>,
    refused: BTreeSet<i64>,
    down: bool,
    calls: u64,
    written_homes: Vec<String>,
}

struct Shared<W> {
    store: Mutex<Store<W>>,
    changed: Condvar,
    entities_per_step: usize,
}

/// A sink in memory; clones share one store.
pub struct MemorySink<W> {
    shared: Arc<Shared<W>>,
}

impl<W> Clone for MemorySink<W> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<W> fmt::Debug for MemorySink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink").finish_non_exhaustive()
    }
}

impl<W: Clone + Send + Sync + 'static> Default for MemorySink<W> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many entities one atomic step of a commit takes by default.
const ENTITIES_PER_STEP: usize = 256;

impl<W: Clone + Send + Sync + 'static> MemorySink<W> {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::build(ENTITIES_PER_STEP, None)
    }

    /// An empty store that remembers every moment, for tests that lose a tail. Each atomic step copies everything:
    /// for small tests. `entities_per_step` (at least 1) cuts commits into atomic steps.
    #[must_use]
    pub fn with_history(entities_per_step: usize) -> Self {
        Self::build(entities_per_step, Some(Vec::new()))
    }

    fn build(entities_per_step: usize, history: Option<Vec<World<W>>>) -> Self {
        assert!(entities_per_step > 0, "a step takes at least one entity");
        let now = World::default();
        let store = Store {
            now,
            history,
            troubles: BTreeMap::new(),
            refused: BTreeSet::new(),
            down: false,
            calls: 0,
            written_homes: Vec::new(),
        };
        let shared = Shared { store: Mutex::new(store), changed: Condvar::new(), entities_per_step };
        Self { shared: Arc::new(shared) }
    }

    fn store(&self) -> MutexGuard<'_, Store<W>> {
        // A test that panicked while holding the lock fails by itself; the store is consistent between statements.
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store holds for a lane now.
    #[must_use]
    pub fn lane(&self, lane: &LaneId) -> LaneView<W> {
        self.store().now.lanes.get(lane).cloned().unwrap_or_default()
    }

    /// The lanes that ever wrote.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneId> {
        self.store().now.lanes.keys().cloned().collect()
    }

    /// The entity that lives at `home`, as it was last written.
    #[must_use]
    pub fn entity(&self, home: &str) -> Option<EntityChange<W>> {
        self.store().now.entities.get(home).cloned()
    }

    /// All entities by home.
    #[must_use]
    pub fn entities(&self) -> BTreeMap<String, EntityChange<W>> {
        self.store().now.entities.clone()
    }

    /// All rows, in order of lane, offset and writing.
    #[must_use]
    pub fn rows(&self) -> Vec<W> {
        self.store().now.lanes.values().flat_map(|lane| lane.rows.values().flatten()).cloned().collect()
    }

    /// How many calls the store has seen: reads, and atomic steps of commits, failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.store().calls
    }

    /// Homes in the order in which they were written since the last time this was asked.
    #[must_use]
    pub fn take_written_homes(&self) -> Vec<String> {
        std::mem::take(&mut self.store().written_homes)
    }

    /// Makes trouble at the `n`-th call from now (1 is the next).
    pub fn trouble_at(&self, n: u64, trouble: Trouble) {
        let mut store = self.store();
        let at = store.calls + n;
        store.troubles.insert(at, trouble);
    }

    /// The store refuses rows of these offsets from now on (besides those it refuses already).
    pub fn refuse(&self, offsets: impl IntoIterator<Item = i64>) {
        self.store().refused.extend(offsets);
    }

    /// Takes the store down: every call fails until it is up again.
    pub fn set_down(&self, down: bool) {
        self.store().down = down;
        self.shared.changed.notify_all();
    }

    /// This moment; [`Self::lose_tail`] goes back to it.
    ///
    /// # Panics
    /// When the store was not made with [`Self::with_history`].
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.store().history.as_ref().map_or_else(no_history, Vec::len))
    }

    /// The moment `steps` atomic steps ago: also one inside a commit.
    ///
    /// # Panics
    /// When the store was not made with [`Self::with_history`], or is younger than that.
    #[must_use]
    pub fn moment_before(&self, steps: usize) -> Moment {
        let Moment(now) = self.moment();
        assert!(steps <= now, "the store has seen {now} steps, not {steps}");
        Moment(now - steps)
    }

    /// The store loses everything written since `moment`, as after a crash without a synced log.
    ///
    /// # Panics
    /// When the store was not made with [`Self::with_history`], or `moment` lies in a tail that was lost.
    pub fn lose_tail(&self, moment: Moment) {
        let mut store = self.store();
        let store = &mut *store;
        let history = store.history.as_mut().unwrap_or_else(no_history);
        assert!(moment.0 <= history.len(), "that moment was lost before");
        if let Some(then) = history.drain(moment.0..).next() {
            store.now = then;
        }
        self.shared.changed.notify_all();
    }

    /// Blocks the thread until the store satisfies `done`, at most for `patience`. Whether it did.
    #[must_use]
    pub fn wait_until(&self, patience: Duration, done: impl Fn(&Self) -> bool) -> bool {
        // Clones of the handle are asked, so that `done` may use every method; the lock is taken anew for each look.
        let deadline = std::time::Instant::now() + patience;
        loop {
            let seen = self.store().calls;
            if done(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            // Wakes at the next call of anyone; looks again after a while all the same, in case it came in between.
            let guard = self.store();
            if guard.calls == seen {
                drop(self.shared.changed.wait_timeout(guard, left.min(Duration::from_millis(50))));
            }
        }
    }

    /// One call: counts it, fails it if trouble was ordered for it.
    fn call<T>(&self, work: impl FnOnce(&mut Store<W>) -> Result<T, SinkError>) -> Result<T, SinkError> {
        let mut store = self.store();
        store.calls += 1;
        let call = store.calls;
        let trouble = store.troubles.remove(&call);
        let lost =
            |what: &str| Err(SinkError::new(Fault::Transient, format!("memory sink: {what} (call {call})")));
        let result = if store.down {
            lost("it is down")
        } else if trouble == Some(Trouble::FailBefore) {
            lost("the call failed")
        } else {
            let result = work(&mut store);
            if trouble == Some(Trouble::LoseReply) { lost("the reply was lost") } else { result }
        };
        self.shared.changed.notify_all();
        result
    }
}

fn no_history<T>() -> T {
    panic!("this store keeps no history: make it with MemorySink::with_history")
}

impl MemorySink<HotWrite> {
    /// The readable fields of the entity at `home`, none of which is absent; empty if there is no such entity.
    #[must_use]
    pub fn fields(&self, home: &str) -> BTreeMap<String, String> {
        let writes = self.entity(home).map(|entity| entity.writes).unwrap_or_default();
        let fields = writes.into_iter().filter_map(|write| match write {
            HotWrite::Field { name, value } => Some((name.into_owned(), value?)),
            HotWrite::Ranked { .. } | HotWrite::ExpireAt(_) => None,
        });
        fields.collect()
    }

    /// The members of a sorted set by name. A projector names an entity's place in each of its lists every time, so
    /// the last write of each entity tells.
    #[must_use]
    pub fn list(&self, list: &str) -> BTreeMap<String, f64> {
        let entities = self.entities();
        let places =
            entities.into_values().flat_map(|entity| entity.writes).filter_map(|write| match write {
                HotWrite::Ranked { list: name, member, score } if name == list => Some((member, score?)),
                _ => None,
            });
        places.collect()
    }
}

/// A commit as atomic steps. With rows it is one (a transaction of a SQL store); without, it is as Redis has it, only
/// cut finer: set-asides, then entities, then progress, each in steps of their own.
fn cut<W>(unit: &UnitOfWork<W>, per_step: usize) -> Parts {
    if !unit.rows.is_empty() || !unit.entries.is_empty() {
        return Parts::whole(unit);
    }
    let (set_asides, entities) = (unit.set_aside.len(), unit.entities.len());
    let part = |set_asides, entities| Part { set_asides, entities, size_bytes: 0 };
    let mut parts = Vec::new();
    if set_asides > 0 {
        parts.push(part(0..set_asides, 0..0));
    }
    let starts = (0..entities).step_by(per_step);
    parts.extend(starts.map(|start| part(0..0, start..entities.min(start + per_step))));
    if on(Mutant::SetAsidesLast) && set_asides > 0 {
        parts.rotate_left(1);
    }
    parts.push(part(0..0, 0..0));
    Parts::new(unit, parts)
}

impl<W: Clone> Store<W> {
    /// Takes one step if the chain is unbroken.
    fn step(&mut self, unit: &UnitOfWork<W>, parts: &Parts, index: usize) -> Result<(), SinkError> {
        let verdict = self.now.judge(&unit.lane, parts, index);
        if verdict == Verdict::Fenced {
            let (follows, _) = parts.links(index);
            return Err(SinkError::fenced(&unit.lane, follows, self.now.link(&unit.lane)));
        }
        if verdict == Verdict::Apply {
            self.history.iter_mut().for_each(|history| history.push(self.now.clone()));
            let homes = unit.entities[parts.part(index).entities.clone()].iter().map(|c| c.home.clone());
            self.written_homes.extend(homes);
        }
        self.now.take(unit, parts, index);
        Ok(())
    }

    fn refusals(&self, unit: &UnitOfWork<W>) -> Vec<RefusedAt> {
        let offsets: BTreeSet<i64> = unit.rows.iter().map(|row| row.offset).collect();
        let refused = offsets.intersection(&self.refused);
        refused.map(|&offset| RefusedAt { offset, detail: format!("offset {offset} is refused") }).collect()
    }
}

impl<W: Clone + Send + Sync + 'static> Sink for MemorySink<W> {
    type Write = W;
    const IN_PARTS: bool = true;

    async fn check(&self) -> Result<(), SinkError> {
        self.call(|_| Ok(()))
    }

    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        self.call(|store| Ok(store.now.read(lane, homes)))
    }

    async fn entries(
        &self,
        lane: &LaneId,
        _: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        self.call(|store| {
            let Some(view) = store.now.lanes.get(lane) else { return Ok(BTreeMap::new()) };
            let found = offsets.iter().filter_map(|offset| Some((*offset, view.ledger.get(offset)?.clone())));
            Ok(found.collect())
        })
    }

    async fn not_taken(
        &self,
        lane: &LaneId,
        _: LogId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        self.call(|store| {
            let Some(view) = store.now.lanes.get(lane) else { return Ok(BTreeSet::new()) };
            let named = view.ledger.range(range).filter(|(_, entry)| !entry.state.is_taken());
            Ok(named.map(|(offset, _)| *offset).collect())
        })
    }

    async fn commit(&self, unit: &UnitOfWork<W>) -> Result<Commit, SinkError> {
        let parts = cut(unit, self.shared.entities_per_step);
        // What an earlier try of this unit stored is recognised by its links: go on behind it.
        let stored = self.store().now.link(&unit.lane);
        let done = match parts.standing(stored) {
            Standing::Done(done) if done == parts.len() => {
                return self.call(|_| Ok(Commit::AlreadyApplied));
            }
            Standing::Done(done) => done,
            Standing::Foreign => 0,
        };
        if done == 0 {
            let refused = self.store().refusals(unit);
            // A broken chain is told before a refusal: a fenced owner has no say about rows.
            if !refused.is_empty() && stored == unit.follows {
                return self.call(|_| Ok(Commit::Refused(refused)));
            }
        }
        for index in done..parts.len() {
            self.call(|store| store.step(unit, &parts, index))?;
        }
        Ok(Commit::Applied)
    }
}
