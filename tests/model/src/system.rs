//! The whole: two owners, the group, the store, what is on its way, and what follows from each action.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleetlog_event::{
    EventId, LogId,
    robot::{Connected, RobotEvent},
};
use fleetlog_projection::{
    LaneId, LaneScope, LedgerEntry, LogNow, Record,
    given::{MemoryLog, unit_meta},
    memory::World,
};
use stateright::Model;
use uuid::Uuid;

use crate::{
    action::{Action, Who},
    code::{Code, Write, protocol},
    flight::Flight,
    owner::{Owner, Phase},
    properties::{self, Finding},
    scene::{Faults, Scene},
};

/// The rules: a scene with its log.
#[derive(Debug)]
pub struct System {
    pub(crate) scene: Scene,
    pub(crate) log: Log,
    pub(crate) lane: LaneId,
    pub(crate) now: LogNow,
    pub(crate) codes: [Code; 2],
    /// Offsets whose rows the store refuses.
    pub(crate) refused: Vec<i64>,
    /// For each entity, the offsets of its events that are no duplicates.
    pub(crate) expected: BTreeMap<String, Vec<i64>>,
}

/// The log and its decoder.
pub(crate) struct Log(pub(crate) MemoryLog);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records", self.0.records().len())
    }
}

/// Everything there is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) world: Arc<World<Write>>,
    /// The moment the store falls back to; its beginning if none was kept.
    pub(crate) kept: Option<Arc<World<Write>>>,
    /// Who has the partition.
    pub(crate) group: Who,
    pub(crate) owners: [Owner; 2],
    /// Calls that nobody waits for.
    pub(crate) late: Vec<Flight>,
    /// Offsets whose dead letters the broker has acknowledged.
    pub(crate) letters: BTreeSet<i64>,
    /// Faults that may still strike.
    pub(crate) left: Faults,
    /// What went wrong so far.
    pub(crate) found: u16,
}

impl State {
    pub(crate) fn find(&mut self, finding: Finding) {
        self.found |= finding.bit();
    }

    /// Every ledger entry that is stored.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.world.lanes.values().flat_map(|lane| lane.ledger.values())
    }

    /// A nonce that nothing knows: as good as one that was never used.
    pub(crate) fn fresh_nonce(&self, lane: &LaneId) -> u64 {
        let stored = [Some(&self.world), self.kept.as_ref()].into_iter().flatten();
        let stored = stored.filter_map(|world| world.link(lane));
        let seen = self.owners.iter().filter_map(|owner| owner.work()?.core.link());
        let late = self.late.iter().flat_map(|flight| [flight.unit.follows, Some(flight.unit.leaves)]);
        let used: BTreeSet<u64> = stored
            .chain(seen)
            .chain(late.flatten())
            .map(|link| link.nonce())
            .chain(self.owners.iter().map(|owner| owner.nonce))
            .collect();
        (1..).find(|nonce| !used.contains(nonce)).unwrap_or(u64::MAX)
    }
}

const LOG: LogId = LogId(Uuid::from_u128(0x91e4));

impl System {
    /// The system of a scene.
    #[must_use]
    pub fn new(scene: Scene) -> Self {
        let mut log = MemoryLog::default();
        let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (index, event) in scene.log.iter().enumerate() {
            let mut meta = unit_meta("1", &event.entity.to_string());
            meta.event_id = EventId(Uuid::from_u128(u128::from(event.id) + 1));
            log.append(RobotEvent::from(Connected { meta, protocol: protocol(event.rejected_by) }));
            let span = usize::try_from(scene.dedup_span_offsets).expect("a span is not negative");
            let window = &scene.log[index.saturating_sub(span)..index];
            if !window.iter().any(|earlier| (earlier.entity, earlier.id) == (event.entity, event.id)) {
                let offset = i64::try_from(index).expect("a short log");
                expected.entry(format!("s1.u{}", event.entity)).or_default().push(offset);
            }
        }
        let refused = scene.log.iter().zip(0..).filter_map(|(event, at)| event.is_refused.then_some(at));
        let length = i64::try_from(scene.log.len()).expect("a short log");
        Self {
            lane: LaneId { projection: "m".into(), version: 1, topic: "t".into(), partition: 0 },
            now: LogNow {
                scope: LaneScope { log: LOG, partition: 0, partitions: 1 },
                low: 0,
                high: length + i64::from(scene.ends_with_marker),
            },
            codes: [0, 1].map(|who| Code::of(who, scene.store)),
            refused: refused.collect(),
            log: Log(log),
            expected,
            scene,
        }
    }

    pub(crate) fn records(&self) -> &[Record] {
        self.log.0.records()
    }

    /// What can happen without a fault.
    pub(crate) fn ordinary(&self, state: &State, out: &mut Vec<Action>) {
        out.extend((0..state.late.len()).map(Action::LandLate));
        for who in 0..2 {
            self.ordinary_of(state, who, out);
        }
    }

    fn ordinary_of(&self, state: &State, who: Who, out: &mut Vec<Action>) {
        let owner = &state.owners[who];
        if !owner.airborne.is_empty() {
            out.push(Action::LetterLands(who));
        }
        let left = usize::try_from(self.now.high - owner.feed.next).unwrap_or(0);
        match &owner.phase {
            Phase::Out => {}
            Phase::Start { .. } => out.push(Action::Begin(who)),
            // Not taken while the partition is another's: asked again until it is, or until the lane is revoked.
            Phase::Proving(_) if state.group != who => {}
            Phase::Proving(_) => out.push(Action::Prove(who)),
            Phase::Idle(work) => {
                let room = match &owner.committing {
                    None => self.scene.batch_max,
                    Some(committing) if committing.is_awaited => 0,
                    Some(_) => self.scene.batch_max.saturating_sub(work.ahead.items()),
                };
                if owner.feed.prefetched.is_none() {
                    out.extend((1..=left.min(room)).rev().map(|n| Action::Take(who, n)));
                } else if room > 0 {
                    out.push(Action::TakePrefetched(who));
                }
                if owner.committing.is_none() && self.idle_would_act(state, work) {
                    out.push(Action::Idle(who));
                }
                if owner.committing.is_none() && self.due_command(work).is_some() {
                    out.push(Action::CarryOut(who));
                }
            }
            Phase::Reading { .. } if owner.committing.is_some() => {}
            Phase::Reading { .. } => out.push(Action::ReadStates(who)),
            Phase::Publishing { .. } => out.push(Action::Publish(who)),
        }
        if let Some(committing) = &owner.committing {
            if !committing.is_answered() {
                out.push(Action::Land(who));
            } else if !matches!(owner.phase, Phase::Publishing { .. }) {
                // While it publishes a lane looks at nothing else.
                out.push(Action::Answer(who));
            }
            // How much is read ahead makes no difference to what it is good for: being stale.
            if self.scene.prefetches && owner.feed.prefetched.is_none() && left > 0 {
                out.push(Action::Prefetch(who, left.min(self.scene.batch_max)));
            }
        }
        if owner.has_lane() && state.group != who {
            out.push(Action::Revoked(who));
        }
    }

    fn faults(state: &State, out: &mut Vec<Action>) {
        let left = state.left;
        for (who, owner) in state.owners.iter().enumerate() {
            if left.timeouts > 0 && owner.committing.is_some() {
                out.push(Action::Timeout(who));
            }
            // One that does nothing yet is killed without a trace.
            if left.crashes > 0 && owner.work().is_some() {
                out.push(Action::Crash(who));
            }
        }
        if left.rebalances > 0 {
            out.push(Action::Rebalance);
        }
        if left.losses > 0 {
            if state.kept.is_none() && *state.world != World::default() {
                out.push(Action::Keep);
            }
            let fallen =
                state.kept.as_ref().map_or_else(|| *state.world == World::default(), |k| *k == state.world);
            if !fallen {
                out.push(Action::Lose);
            }
        }
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Owner { phase: Phase::Start { fenced: false }, ..Owner::out() };
        vec![State {
            world: Arc::default(),
            kept: None,
            group: 0,
            owners: [first, Owner::out()],
            late: Vec::new(),
            letters: BTreeSet::new(),
            left: self.scene.faults,
            found: 0,
        }]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        self.ordinary(state, out);
        Self::faults(state, out);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.act(&mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        properties::all(&self.scene)
    }
}
