//! Where a projection lands.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    ops::Range,
    time::Duration,
};

use fleetlog_event::LogId;

use crate::{LaneId, LedgerEntry, Link, Progress, UnitOfWork, Version};

/// How a failure is to be treated. Listed case by case where errors are made; never "retry everything".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It passes: wait and do the same again.
    Transient,
    /// The chain is broken: drop every cached state, read progress again, go on from there.
    Fenced,
    /// It does not pass by itself: this projection stops, the others go on.
    Permanent,
}

/// A sink failed.
#[derive(Debug, thiserror::Error)]
pub struct SinkError {
    /// How to treat it.
    pub fault: Fault,
    /// What was tried and what was wrong; for Permanent also what to do.
    pub what: String,
    /// The client library's error.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl SinkError {
    /// A failure without an error below it.
    #[must_use]
    pub fn new(fault: Fault, what: impl Into<String>) -> Self {
        Self { fault, what: what.into(), source: None }
    }

    /// A failure of the client library.
    #[must_use]
    pub fn caused(fault: Fault, what: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self { fault, what: what.into(), source: Some(Box::new(source)) }
    }

    /// The chain is broken: which link was expected, which one found.
    #[must_use]
    pub fn fenced(lane: &LaneId, expected: Option<Link>, found: Option<Link>) -> Self {
        let show = |link: Option<Link>| link.map_or_else(|| "none".to_owned(), |link| link.to_string());
        Self::new(
            Fault::Fenced,
            format!("lane {lane}: the stored link is {}, not {}", show(found), show(expected)),
        )
    }
}

/// A state as it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredState {
    /// Its version.
    pub version: Version,
    /// The exact state, as JSON.
    pub state: Vec<u8>,
}

/// What a sink holds for a lane, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The lane's link; none before its first write.
    pub link: Option<Link>,
    /// The lane's progress; none before the first write that carried it.
    pub progress: Option<Progress>,
    /// Offsets at or above `progress.main` that the ledger names: left by an interrupted commit, not to be taken. Told
    /// where no states are asked for: whoever begins asks so, and later on a lane knows them.
    pub named: Vec<i64>,
    /// The states asked for, in the order asked; none where there is none.
    pub states: Vec<Option<StoredState>>,
}

/// A commit's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Everything is stored.
    Applied,
    /// It was stored before, exactly this: an earlier reply was lost.
    AlreadyApplied,
    /// The store would not take these (SQL); nothing was stored. Sorted by offset, never empty.
    Refused(Vec<RefusedAt>),
}

/// An event whose row the store would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAt {
    /// The event's offset.
    pub offset: i64,
    /// What the store said.
    pub detail: String,
}

/// Where a projection lands. Every implementation passes the one conformance suite (feature `conformance`).
pub trait Sink: Send + Sync + 'static {
    /// What it can write beside states.
    type Write: Send + Sync + 'static;

    /// Whether a commit is a chain of steps, each whole by itself (Redis), and not one step (SQL). What a lane has to
    /// write may then be several commits: the states of some entities first, progress with the last of them.
    const IN_PARTS: bool;

    /// How far apart a lane's writes begin, at least: for a store to which each of them costs much, whatever is in it. What
    /// comes meanwhile goes with the next one; the first after a quiet while goes at once.
    fn write_interval(&self) -> Duration {
        Duration::ZERO
    }

    /// Looks once, at start, whether the store can keep the guarantees (eviction policy, schema version).
    ///
    /// # Errors
    /// Permanent with the way out, or Transient if it cannot be reached.
    fn check(&self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Reads the lane's link and progress and the states that live at `homes`, all as they are at one moment: a state
    /// newer than its link would be built on even after the store fell back to the link's moment. With no `homes`
    /// this is how an idle lane looks at its link.
    ///
    /// # Errors
    /// Transient or Permanent; never Fenced (the caller compares the link with its own).
    fn read(&self, lane: &LaneId, homes: &[String])
    -> impl Future<Output = Result<Stored, SinkError>> + Send;

    /// The entries that the lane's ledger has of these offsets of a log. What is read here is only ever changed on the
    /// chain: whoever writes by it finds out there whether it still holds.
    ///
    /// # Errors
    /// Transient or Permanent.
    fn entries(
        &self,
        lane: &LaneId,
        log: LogId,
        offsets: &[i64],
    ) -> impl Future<Output = Result<BTreeMap<i64, LedgerEntry>, SinkError>> + Send;

    /// The offsets in a range of a log that the lane's ledger names and that were not taken later on.
    ///
    /// # Errors
    /// As [`Self::entries`].
    fn not_taken(
        &self,
        lane: &LaneId,
        log: LogId,
        range: Range<i64>,
    ) -> impl Future<Output = Result<BTreeSet<i64>, SinkError>> + Send;

    /// Stores a unit of work on the chain. The same unit may be given again after a Transient failure, whose
    /// outcome is unknown: what was stored of it is recognised by its links.
    ///
    /// # Errors
    /// Transient, Permanent, or Fenced if the stored link is neither the one it follows nor one it leaves.
    fn commit(
        &self,
        unit: &UnitOfWork<Self::Write>,
    ) -> impl Future<Output = Result<Commit, SinkError>> + Send;
}
