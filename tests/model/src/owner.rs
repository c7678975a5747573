//! An owner of the lane: where it is in its step, and what it knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleetlog_projection::{
    Batch, LaneCore, Link, SetAside, Taken, UnitOfWork, Writes, parts::Parts, parts::Sending,
};

use crate::{
    code::{Cache, Pending, Write},
    flight::Flight,
};

/// What a lane knows between two readings of its progress: dropped as a whole when the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) core: LaneCore,
    pub(crate) cache: Cache,
}

impl Eq for Cache {}

/// A batch at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    pub(crate) taken: Taken,
    /// What the store refused of it.
    pub(crate) refused: BTreeMap<i64, String>,
    /// Offsets whose dead letters are acknowledged.
    pub(crate) published: BTreeSet<i64>,
}

/// What a step writes, and what the lane learns when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Made {
    pub(crate) entities: Vec<fleetlog_projection::EntityChange<Write>>,
    pub(crate) rows: Vec<fleetlog_projection::RowChange<Write>>,
    pub(crate) set_aside: Vec<SetAside>,
    pub(crate) pending: Pending,
}

impl Made {
    pub(crate) fn into_writes(self) -> (Writes<Write>, Pending) {
        let Self { entities, rows, set_aside, pending } = self;
        (Writes { entities, rows, set_aside }, pending)
    }
}

/// A commit under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Committing {
    /// The batch; none when progress only moves over markers.
    pub(crate) step: Option<Arc<Step>>,
    pub(crate) pending: Pending,
    /// What is still to be written after the unit in flight: the step's own unit, if a mutant put another before it.
    pub(crate) then: Option<Arc<UnitOfWork<Write>>>,
    pub(crate) sending: Sending,
    pub(crate) flight: Flight,
}

impl Committing {
    pub(crate) fn unit(&self) -> &UnitOfWork<Write> {
        &self.flight.unit
    }

    /// The same unit once more, as after a failure of unknown outcome. Returns what is still under way.
    pub(crate) fn send_again(&mut self) -> Flight {
        self.sending = Sending::default();
        let (unit, parts) = (Arc::clone(&self.flight.unit), Arc::clone(&self.flight.parts));
        std::mem::replace(&mut self.flight, Flight::of(unit, parts, &self.sending))
    }

    pub(crate) fn send(&mut self, unit: Arc<UnitOfWork<Write>>, parts: Arc<Parts>) {
        self.sending = Sending::default();
        self.flight = Flight::of(unit, parts, &self.sending);
    }
}

/// Where an owner is. As `engine/src/lane/mod.rs` goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It has no lane.
    Out,
    /// A lane begins, for the first time or anew because it was fenced.
    Start { fenced: bool },
    /// Progress was read; whether the partition is its own is not proven.
    Proving(Arc<Work>),
    /// It waits for records.
    Idle(Arc<Work>),
    /// States have to be read; the link was, if a store reads it by itself.
    Reading { work: Arc<Work>, step: Arc<Step>, link: Option<Link> },
    /// The batch is projected; dead letters were not acknowledged.
    Publishing { work: Arc<Work>, step: Arc<Step>, made: Arc<Made> },
    /// The write was sent.
    Committing(Arc<Work>, Committing),
}

/// What is fetched for a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Feed {
    /// Where fetching goes on.
    pub(crate) next: i64,
    /// Read ahead.
    pub(crate) prefetched: Option<Batch>,
}

/// An owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) phase: Phase,
    pub(crate) feed: Feed,
    /// Of its chain; 0 before the first.
    pub(crate) nonce: u64,
    /// Dead letters that nobody waits for (a mutant).
    pub(crate) airborne: BTreeSet<i64>,
    /// What a mutant lets outlive *Fenced*.
    pub(crate) survivor: Option<Arc<Work>>,
}

impl Owner {
    pub(crate) fn out() -> Self {
        Self { phase: Phase::Out, feed: Feed::default(), nonce: 0, airborne: BTreeSet::new(), survivor: None }
    }

    pub(crate) fn has_lane(&self) -> bool {
        self.phase != Phase::Out
    }

    pub(crate) fn work(&self) -> Option<&Arc<Work>> {
        match &self.phase {
            Phase::Out | Phase::Start { .. } => None,
            Phase::Proving(work)
            | Phase::Idle(work)
            | Phase::Reading { work, .. }
            | Phase::Publishing { work, .. }
            | Phase::Committing(work, _) => Some(work),
        }
    }

    /// It ends, in whatever it does. Returns what it leaves under way.
    pub(crate) fn end(&mut self) -> Option<Flight> {
        let owner = std::mem::replace(self, Self::out());
        match owner.phase {
            Phase::Committing(_, committing) => Some(committing.flight),
            _ => None,
        }
    }
}
