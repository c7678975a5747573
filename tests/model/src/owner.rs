//! An owner of the lane: where it is in its step, and what it knows.

use std::{collections::BTreeSet, sync::Arc};

use fleetlog_event::EntityKey;
use fleetlog_projection::{
    Batch, LaneCore, Link, Progress, RowChange, SetAside, Taken, UnitOfWork, parts::Parts, parts::Sending,
};

use crate::{
    code::{Cache, Pending, Write},
    flight::Flight,
};

impl Eq for Cache {}

/// What a lane knows between two readings of its progress: dropped as a whole when the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) core: LaneCore,
    pub(crate) cache: Cache,
    pub(crate) ahead: Ahead,
    /// As long as there is one, a piece of it is under way, or about to be.
    pub(crate) round: Option<Round>,
}

/// Batches that were projected and not written yet: the next round covers all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ahead {
    pub(crate) touched: Vec<EntityKey>,
    pub(crate) rows: Vec<RowChange<Write>>,
    pub(crate) set_aside: Vec<SetAside>,
    /// What rows were made from.
    pub(crate) sources: Vec<Taken>,
    /// Whether any record was taken, be it a duplicate.
    pub(crate) any: bool,
}

impl Ahead {
    /// Entities, rows and set-asides to write.
    pub(crate) fn items(&self) -> usize {
        self.touched.len() + self.rows.len() + self.set_aside.len()
    }
}

/// What is being written: everything that was projected up to some moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Round {
    /// Where the last piece of it takes the lane.
    pub(crate) reach: Progress,
    /// What is left of it to be written.
    pub(crate) ahead: Ahead,
}

/// A batch, projected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Made {
    pub(crate) pending: Pending,
    pub(crate) rows: Vec<RowChange<Write>>,
    pub(crate) set_aside: Vec<SetAside>,
}

/// A commit under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Committing {
    /// What its rows were made from.
    pub(crate) sources: Vec<Taken>,
    /// Whether the lane waits for it and does nothing else: a move over markers.
    pub(crate) is_awaited: bool,
    /// What is still to be written after the unit in flight: the lane's own unit, if a mutant put another before it.
    pub(crate) then: Option<Arc<UnitOfWork<Write>>>,
    pub(crate) sending: Sending,
    pub(crate) flight: Flight,
}

impl Committing {
    /// Whether what became of it is known, or some of it.
    pub(crate) fn is_answered(&self) -> bool {
        self.flight.has_landed() || !self.flight.refused.is_empty()
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
    /// It waits for records, or for the write under way.
    Idle(Arc<Work>),
    /// States have to be read, when no write is under way; the link was, if a store reads it by itself.
    Reading { work: Arc<Work>, taken: Arc<Taken>, link: Option<Link> },
    /// The batch is projected; dead letters were not acknowledged.
    Publishing { work: Arc<Work>, taken: Arc<Taken>, made: Arc<Made> },
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
    /// The write under way: one at most, beside whatever the lane does.
    pub(crate) committing: Option<Committing>,
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
        Self {
            phase: Phase::Out,
            committing: None,
            feed: Feed::default(),
            nonce: 0,
            airborne: BTreeSet::new(),
            survivor: None,
        }
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
            | Phase::Publishing { work, .. } => Some(work),
        }
    }

    pub(crate) fn work_mut(&mut self) -> Option<&mut Arc<Work>> {
        match &mut self.phase {
            Phase::Out | Phase::Start { .. } => None,
            Phase::Proving(work)
            | Phase::Idle(work)
            | Phase::Reading { work, .. }
            | Phase::Publishing { work, .. } => Some(work),
        }
    }

    /// It ends, in whatever it does. Returns what it leaves under way.
    pub(crate) fn end(&mut self) -> Option<Flight> {
        let owner = std::mem::replace(self, Self::out());
        owner.committing.map(|committing| committing.flight)
    }
}
