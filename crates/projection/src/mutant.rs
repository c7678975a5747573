//! Ways to break a guarantee on purpose, so that the tests that prove the guarantees can be shown to fail.
//!
//! Compiled in only with the feature `mutants`, which no ordinary build has; without it [`on`] is `false` at compile
//! time. At most one is on in a process.

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
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 17] = [
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

#[cfg(feature = "mutants")]
pub use active::{activate, on};

#[cfg(feature = "mutants")]
mod active {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Mutant;

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

    #[test]
    fn names_are_unique_and_none_is_on_by_itself() {
        let mut names: Vec<_> = Mutant::ALL.map(Mutant::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(!Mutant::ALL.into_iter().any(on));
    }
}
