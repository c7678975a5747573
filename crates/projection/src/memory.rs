//! A sink in memory, with the chain as the Redis sink has it: a commit is several atomic steps, each on the chain.
//!
//! For tests of everything that stands on a sink (engine, projections, the conformance suite itself), so it has
//! hooks for what can go wrong with a store: lost replies, failures, refusals, outages and lost tails. Clones share
//! one store, as two processes would.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleetlog_event::{Reject, TimestampMs};

use crate::{
    Commit, EntityChange, Fault, HotWrite, LaneId, Link, Progress, RefusedAt, RowChange, SetAside, Sink,
    SinkError, Stored, StoredState, UnitOfWork, Verdict, judge,
    mutant::{Mutant, on},
};

/// What a lane's ledger holds about an event that was set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    /// Why.
    pub reject: Reject,
    /// The event's full name, if it could be read.
    pub event_type: Option<String>,
    /// When the entry was made.
    pub made_at: TimestampMs,
}

/// What a store holds for one lane.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneView<W> {
    /// The lane's link.
    pub link: Option<Link>,
    /// The lane's progress.
    pub progress: Option<Progress>,
    /// Set-asides by offset.
    pub ledger: BTreeMap<i64, LedgerEntry>,
    /// Rows by offset.
    pub rows: BTreeMap<i64, Vec<W>>,
}

impl<W> Default for LaneView<W> {
    fn default() -> Self {
        Self { link: None, progress: None, ledger: BTreeMap::new(), rows: BTreeMap::new() }
    }
}

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

#[derive(Clone)]
struct World<W> {
    lanes: BTreeMap<LaneId, LaneView<W>>,
    entities: BTreeMap<String, EntityChange<W>>,
}

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
        let now = World { lanes: BTreeMap::new(), entities: BTreeMap::new() };
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

/// One atomic step of a commit.
struct Step<'a, W> {
    set_aside: &'a [SetAside],
    entities: &'a [EntityChange<W>],
    rows: &'a [RowChange<W>],
    progress: Option<Progress>,
}

/// A commit as atomic steps. With rows it is one (a transaction of a SQL store); without, it is as Redis has it:
/// set-asides first, before what they concern, then entities, progress last.
fn steps<W>(unit: &UnitOfWork<W>, per_step: usize) -> Vec<Step<'_, W>> {
    let nothing = || Step { set_aside: &[], entities: &[], rows: &[], progress: None };
    let progress = Some(unit.progress);
    if !unit.rows.is_empty() {
        return vec![Step {
            set_aside: &unit.set_aside,
            entities: &unit.entities,
            rows: &unit.rows,
            progress,
        }];
    }
    let mut steps = Vec::new();
    if !unit.set_aside.is_empty() {
        steps.push(Step { set_aside: &unit.set_aside, ..nothing() });
    }
    steps.extend(unit.entities.chunks(per_step).map(|entities| Step { entities, ..nothing() }));
    if on(Mutant::SetAsidesLast) && !unit.set_aside.is_empty() {
        steps.rotate_left(1);
    }
    steps.push(Step { progress, ..nothing() });
    steps
}

/// The link after step `index` of `count`: the last one leaves the unit's own.
fn link_after(leaves: Link, index: usize, count: usize) -> Link {
    let part = u32::try_from(index + 1).unwrap_or(u32::MAX);
    if index + 1 == count { leaves } else { leaves.part(part) }
}

impl<W: Clone> Store<W> {
    /// Takes one step if the chain is unbroken.
    fn step(
        &mut self,
        unit: &UnitOfWork<W>,
        follows: Option<Link>,
        leaves: Link,
        step: &Step<'_, W>,
    ) -> Result<Verdict, SinkError> {
        let (lane, made_at) = (&unit.lane, unit.made_at);
        let stored = self.now.lanes.get(lane).and_then(|lane| lane.link);
        match judge(stored, follows, leaves) {
            Verdict::Fenced => return Err(SinkError::fenced(lane, follows, stored)),
            Verdict::AlreadyApplied => return Ok(Verdict::AlreadyApplied),
            Verdict::Apply => {}
        }
        if let Some(history) = &mut self.history {
            history.push(self.now.clone());
        }
        let view = self.now.lanes.entry(lane.clone()).or_default();
        view.link = Some(leaves);
        for set_aside in step.set_aside {
            let (reject, event_type) = (set_aside.reject.clone(), set_aside.event_type.clone());
            view.ledger.insert(set_aside.record.offset, LedgerEntry { reject, event_type, made_at });
        }
        for row in step.rows {
            view.rows.entry(row.offset).or_default().push(row.write.clone());
        }
        view.progress = step.progress.or(view.progress);
        for change in step.entities {
            self.written_homes.push(change.home.clone());
            self.now.entities.insert(change.home.clone(), change.clone());
        }
        Ok(Verdict::Apply)
    }

    fn refusals(&self, unit: &UnitOfWork<W>) -> Vec<RefusedAt> {
        let offsets: BTreeSet<i64> = unit.rows.iter().map(|row| row.offset).collect();
        let refused = offsets.intersection(&self.refused);
        refused.map(|&offset| RefusedAt { offset, detail: format!("offset {offset} is refused") }).collect()
    }
}

impl<W: Clone + Send + Sync + 'static> Sink for MemorySink<W> {
    type Write = W;

    async fn check(&self) -> Result<(), SinkError> {
        self.call(|_| Ok(()))
    }

    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        self.call(|store| {
            let none = LaneView::default();
            let view = store.now.lanes.get(lane).unwrap_or(&none);
            let from = view.progress.map_or(i64::MIN, |progress| progress.main);
            let state = |home: &String| {
                let change = store.now.entities.get(home)?;
                Some(StoredState { version: change.version, state: change.state.clone() })
            };
            Ok(Stored {
                link: view.link,
                progress: view.progress,
                named: view.ledger.range(from..).map(|(&offset, _)| offset).collect(),
                states: homes.iter().map(state).collect(),
            })
        })
    }

    async fn commit(&self, unit: &UnitOfWork<W>) -> Result<Commit, SinkError> {
        let steps = steps(unit, self.shared.entities_per_step);
        let links: Vec<Link> =
            (0..steps.len()).map(|index| link_after(unit.leaves, index, steps.len())).collect();
        // What an earlier try of this unit stored is recognised by its links: go on behind it.
        let stored = self.store().now.lanes.get(&unit.lane).and_then(|lane| lane.link);
        if stored == Some(unit.leaves) {
            return self.call(|_| Ok(Commit::AlreadyApplied));
        }
        let done = links.iter().position(|link| stored == Some(*link)).map_or(0, |index| index + 1);
        if done == 0 {
            let refused = self.store().refusals(unit);
            // A broken chain is told before a refusal: a fenced owner has no say about rows.
            if !refused.is_empty() && stored == unit.follows {
                return self.call(|_| Ok(Commit::Refused(refused)));
            }
        }
        let mut follows = if done == 0 { unit.follows } else { links.get(done - 1).copied() };
        for (step, &leaves) in steps.iter().zip(&links).skip(done) {
            self.call(|store| store.step(unit, follows, leaves, step))?;
            follows = Some(leaves);
        }
        Ok(Commit::Applied)
    }
}
