//! Ways to break a guarantee on purpose, so that the tests that prove the guarantees can be shown to fail.
//!
//! Compiled in only with the feature `mutants`, which no ordinary build has; without it [`on`] is `false` at compile
//! time. At most one is on in a process.
//!
//! Beside them a fault of projectors that breaks no guarantee: they reject what they should take ([`Wrongly`]), so that
//! there is something to be redriven once "the fix" runs, which is a process without it.

#[cfg(feature = "mutants")]
use fleetlog_event::{EventId, Reason};
use fleetlog_event::{EventSet, Reject};

/// A guarantee's mechanism, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// Progress is written in a step of its own, before the data.
    ProgressBeforeData = 1,
    /// Writes are taken whatever link stands there, and nobody looks at the link after reading.
    LinkCheckOff,
    /// A write counts as already applied if any later link stands there, instead of exactly its own.
    AtOrPast,
    /// An owner goes on with the same nonce after *Fenced*.
    NonceReused,
    /// Cached states outlive *Fenced*.
    CacheKept,
    /// Set-asides are written after the entities of a commit.
    SetAsidesLast,
    /// Nobody waits for dead letters to be acknowledged.
    DeadLetterNotAwaited,
    /// Records that were read before a seek are taken after it.
    StalePrefetch,
    /// The duplicate window outlives *Fenced*, with what it learned of batches that were never committed.
    DedupLearnsEarly,
    /// Progress is one further than what was taken.
    ProgressOffByOne,
    /// An idle lane does not look at its link.
    IdleLinkNotRead,
    /// An event below its entity's version is taken again.
    CoveredTakenAgain,
    /// After *Fenced* a lane goes on without proof that the partition is still its own.
    OwnershipNotProved,
    /// Progress goes with the first piece of a round, and not with the last.
    ProgressWithFirstPiece,
    /// Set-asides go with the last piece of a round, and not with the first.
    SetAsidesWithLastPiece,
    /// A piece leaves behind what was set aside after its round, though its states may cover that.
    SetAsidesBeyondLeft,
    /// What is redriven is taken whether or not the ledger has an open entry of it.
    LedgerSkipped,
    /// A handler commits what was read, done or not.
    HandlerCommitsAhead,
    /// Nothing waits in a retry tier until it is due.
    HandlerTooEarly,
}

impl Mutant {
    /// Those of handlers, which are not part of the model of projections.
    pub const OF_HANDLERS: [Self; 2] = [Self::HandlerCommitsAhead, Self::HandlerTooEarly];

    /// Every mutant.
    pub const ALL: [Self; 19] = [
        Self::ProgressBeforeData,
        Self::LinkCheckOff,
        Self::AtOrPast,
        Self::NonceReused,
        Self::CacheKept,
        Self::SetAsidesLast,
        Self::DeadLetterNotAwaited,
        Self::StalePrefetch,
        Self::DedupLearnsEarly,
        Self::ProgressOffByOne,
        Self::IdleLinkNotRead,
        Self::CoveredTakenAgain,
        Self::OwnershipNotProved,
        Self::ProgressWithFirstPiece,
        Self::SetAsidesWithLastPiece,
        Self::SetAsidesBeyondLeft,
        Self::LedgerSkipped,
        Self::HandlerCommitsAhead,
        Self::HandlerTooEarly,
    ];

    /// Its name, as it is given in the environment and shown in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProgressBeforeData => "progress-before-data",
            Self::LinkCheckOff => "link-check-off",
            Self::AtOrPast => "at-or-past",
            Self::NonceReused => "nonce-reused",
            Self::CacheKept => "cache-kept",
            Self::SetAsidesLast => "set-asides-last",
            Self::DeadLetterNotAwaited => "dead-letter-not-awaited",
            Self::StalePrefetch => "stale-prefetch",
            Self::DedupLearnsEarly => "dedup-learns-early",
            Self::ProgressOffByOne => "progress-off-by-one",
            Self::IdleLinkNotRead => "idle-link-not-read",
            Self::CoveredTakenAgain => "covered-taken-again",
            Self::OwnershipNotProved => "ownership-not-proved",
            Self::ProgressWithFirstPiece => "progress-with-first-piece",
            Self::SetAsidesWithLastPiece => "set-asides-with-last-piece",
            Self::SetAsidesBeyondLeft => "set-asides-beyond-left",
            Self::LedgerSkipped => "ledger-skipped",
            Self::HandlerCommitsAhead => "handler-commits-ahead",
            Self::HandlerTooEarly => "handler-too-early",
        }
    }
}

/// Whether this mutant is the one that is on.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn on(_: Mutant) -> bool {
    false
}

/// Why an event is rejected that should be taken, if it is: never in an ordinary build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn wrongly_rejected<S: EventSet>(_projection: &str, _event: &S) -> Option<Reject> {
    None
}

/// Which events are rejected that should be taken, and by which projections.
#[cfg(feature = "mutants")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrongly {
    /// Those that reject; none: all of them.
    projections: Vec<String>,
    /// Events of this type (such as `DoorChanged`); none: one in 16 of all.
    event_type: Option<String>,
    /// Of these only those of this site; none: of all.
    site_uid: Option<String>,
}

#[cfg(feature = "mutants")]
impl Wrongly {
    /// Reads `<projections>[:<event type>[:<site>]]`, projections separated by commas, or `all`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(':');
        let names = parts.next().unwrap_or_default();
        let projections =
            if names == "all" { Vec::new() } else { names.split(',').map(str::to_owned).collect() };
        let mut next = || parts.next().map(str::to_owned);
        Self { projections, event_type: next(), site_uid: next() }
    }

    fn reject<S: EventSet>(&self, projection: &str, event: &S) -> Option<Reject> {
        let by_this = self.projections.is_empty() || self.projections.iter().any(|name| name == projection);
        let this_one = match &self.event_type {
            Some(name) => event.event_type().name.rsplit('.').next() == Some(name.as_str()),
            None => is_one_in_16(event.meta().event_id),
        };
        let of_site = self.site_uid.as_ref().is_none_or(|site| *site == event.meta().site_uid);
        (by_this && this_one && of_site).then(|| Reject::new(Reason::OutOfRange, "wrongly rejected (a test)"))
    }
}

/// By the id alone, so that whoever rejects wrongly rejects the same ones; `tests/chaos/recount_log.py` has it once more.
#[cfg(feature = "mutants")]
fn is_one_in_16(event_id: EventId) -> bool {
    event_id.0.as_bytes()[15].is_multiple_of(16)
}

#[cfg(feature = "mutants")]
pub(crate) use active::wrongly_rejected;
#[cfg(feature = "mutants")]
pub use active::{activate, on, reject_wrongly};

#[cfg(feature = "mutants")]
mod active {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    };

    use super::{EventSet, Mutant, Reject, Wrongly};

    static WRONGLY: OnceLock<Wrongly> = OnceLock::new();

    /// From now on this process rejects such events. What was said first holds.
    pub fn reject_wrongly(wrongly: Wrongly) {
        let _ = WRONGLY.set(wrongly);
    }

    /// Why an event is rejected that should be taken, if it is.
    pub(crate) fn wrongly_rejected<S: EventSet>(projection: &str, event: &S) -> Option<Reject> {
        WRONGLY.get()?.reject(projection, event)
    }

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Whether this mutant is the one that is on.
    #[must_use]
    pub fn on(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as u8
    }

    /// Switches this mutant on, or all off.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "mutants")]
    #[test]
    fn only_what_is_named_is_rejected_wrongly() {
        use fleetlog_event::{
            EventMeta,
            robot::{Connected, RobotEvent},
        };

        let event = |last: u8| {
            let event_id = EventId(uuid::Uuid::from_u128(u128::from(last)));
            let meta = EventMeta { event_id, ..crate::given::unit_meta("504", "7") };
            RobotEvent::Connected(Connected { meta, protocol: None })
        };
        let rejects =
            |text: &str, last: u8| Wrongly::parse(text).reject("unit-status", &event(last)).is_some();
        assert!(rejects("all", 32) && rejects("task-state,unit-status", 0));
        assert!(!rejects("all", 33) && !rejects("task-state", 32));
        assert!(rejects("all:Connected", 33) && !rejects("all:Disconnected", 32));
        assert!(rejects("all:Connected:504", 33) && !rejects("all:Connected:505", 33));
    }

    #[test]
    fn names_are_unique_and_none_is_on_by_itself() {
        let mut names: Vec<_> = Mutant::ALL.map(Mutant::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(!Mutant::ALL.into_iter().any(on));
    }
}
