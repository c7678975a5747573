//! The projections of the two owners: the same events, other results.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use fleetlog_event::{
    EntityKey, Reason, Recorded, Reject,
    robot::{Connected, RobotEvent},
};
use fleetlog_projection::{
    EntityChange, Fold, FoldCache, FoldPending, FoldProjector, LaneScope, Map, MapProjector, Projected,
    Projection, Record, Rulings, StoredState, given::MemoryLog,
};

use crate::{action::Who, scene::StoreKind};

/// An entity's state: the offsets taken, in order, each with whose code took it.
pub(crate) type Taken = Vec<(i64, u8)>;

/// What is written beside states: of a row, whose code made it; of an entity see [`readable`].
pub(crate) type Write = u8;

/// What people read of a state, whoever wrote it: how much was taken, and whose code took the last. The second often
/// stays as it was, and the first never does.
pub(crate) fn readable(state: &Taken) -> Vec<Write> {
    let count = u8::try_from(state.len()).expect("a short log");
    state.last().map(|(_, code)| vec![count, *code]).unwrap_or_default()
}

/// Entities folded and not written yet.
type Touched = <Fold<Folded> as Projection>::Touched;

/// New states of a batch; empty for a map.
pub(crate) type Pending = FoldPending<Taken>;

/// The text by which an event says who rejects it.
pub(crate) fn protocol(rejected_by: [bool; 2]) -> Option<String> {
    let names: Vec<&str> =
        ["code-0", "code-1"].into_iter().zip(rejected_by).filter_map(|(n, r)| r.then_some(n)).collect();
    (!names.is_empty()).then(|| names.join(" "))
}

fn judge_event(code: u8, event: &RobotEvent) -> Result<(), Reject> {
    let name = format!("code-{code}");
    match event {
        RobotEvent::Connected(Connected { protocol: Some(rejected_by), .. })
            if rejected_by.contains(&name) =>
        {
            Err(Reject::new(Reason::OutOfRange, "rejected by this code"))
        }
        _ => Ok(()),
    }
}

#[derive(Debug)]
pub(crate) struct Folded(u8);

impl FoldProjector for Folded {
    const ID: &'static str = "model";
    type Event = RobotEvent;
    type Write = Write;
    type State = Taken;

    fn home(&self, key: &EntityKey) -> String {
        key.to_string()
    }
    fn apply(&self, state: &mut Taken, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        // First the trace, then the rejection: the trace must be undone.
        state.push((event.position.offset, self.0));
        judge_event(self.0, &event.event)
    }
    fn writes(&self, _: &EntityKey, state: &Taken, out: &mut Vec<Write>) {
        out.extend(readable(state));
    }
}

#[derive(Debug)]
pub(crate) struct Mapped(u8);

impl MapProjector for Mapped {
    const ID: &'static str = "model";
    type Event = RobotEvent;
    type Write = Write;

    fn map(&self, event: &Recorded<RobotEvent>, out: &mut Vec<Write>) -> Result<(), Reject> {
        out.push(self.0);
        judge_event(self.0, &event.event)
    }
}

/// An owner's projection.
#[derive(Debug)]
pub(crate) enum Code {
    Fold(Fold<Folded>),
    Map(Map<Mapped>),
}

/// The states a lane keeps between batches; empty for a map.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cache(FoldCache<Taken>);

impl Hash for Cache {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let sorted: BTreeMap<_, _> = self.0.iter().collect();
        sorted.hash(hasher);
    }
}

impl Code {
    pub(crate) fn of(who: Who, store: StoreKind) -> Self {
        let code = u8::try_from(who).expect("two owners");
        match store {
            StoreKind::Parts(_) => Self::Fold(Fold::new(Folded(code))),
            StoreKind::Whole => Self::Map(Map(Mapped(code))),
        }
    }

    pub(crate) fn missing(&self, cache: &Cache, fresh: &[&Record]) -> (Vec<EntityKey>, Vec<String>) {
        match self {
            // Sorted: a model has to do the same each time.
            Self::Fold(fold) => {
                let sorted: BTreeMap<_, _> = fold.missing(&cache.0, fresh).into_iter().collect();
                sorted.into_iter().unzip()
            }
            Self::Map(_) => (Vec::new(), Vec::new()),
        }
    }

    /// # Errors
    /// When a state is not one to go on from.
    pub(crate) fn admit(
        &self,
        cache: &mut Cache,
        scope: &LaneScope,
        key: EntityKey,
        stored: Option<StoredState>,
    ) -> Result<(), String> {
        match self {
            Self::Fold(fold) => {
                let admitted = fold.admit(&mut cache.0, scope, key, stored);
                admitted.map(|_| ()).map_err(|error| error.to_string())
            }
            Self::Map(_) => Ok(()),
        }
    }

    pub(crate) fn project(
        &self,
        scope: &LaneScope,
        log: &MemoryLog,
        fresh: &[&Record],
        rulings: &Rulings,
        cache: &Cache,
    ) -> Projected<Write, Pending> {
        match self {
            Self::Fold(fold) => fold.project(scope, log, fresh, rulings, &cache.0),
            Self::Map(map) => {
                let Projected { pending: (), rows, set_aside } = map.project(scope, log, fresh, rulings, &());
                Projected { pending: Vec::new(), rows, set_aside }
            }
        }
    }

    /// Takes a batch's states into the cache, ahead of their being written.
    pub(crate) fn fold_ahead(&self, cache: &mut Cache, touched: &mut Vec<EntityKey>, pending: Pending) {
        if let Self::Fold(fold) = self {
            let mut set: Touched = touched.drain(..).collect();
            let _ = fold.fold_ahead(&mut cache.0, &mut set, pending);
            touched.extend(set);
        }
    }

    /// What is to be written of the entities touched: of all of them, or of as many as make a piece, which are then taken
    /// out.
    pub(crate) fn changes(
        &self,
        cache: &mut Cache,
        touched: &mut Vec<EntityKey>,
        bytes_max: usize,
    ) -> Vec<EntityChange<Write>> {
        let Self::Fold(fold) = self else { return Vec::new() };
        let mut set: Touched = touched.drain(..).collect();
        let changes = fold.changes(&mut cache.0, &mut set, bytes_max);
        touched.extend(set);
        changes
    }

    /// Forgets what is known of an entity.
    pub(crate) fn forget_entity(&self, cache: &mut Cache, key: &EntityKey) {
        if let Self::Fold(fold) = self {
            let _ = fold.forget_entity(&mut cache.0, key);
        }
    }

    /// Forgets every state that is written.
    pub(crate) fn forget(&self, cache: &mut Cache) {
        if let Self::Fold(fold) = self {
            let _ = fold.forget(&mut cache.0, usize::MAX);
        }
    }
}
