//! What can happen next.

/// An owner of the lane: 0 or 1.
pub(crate) type Who = usize;

/// What can happen next. What an owner does between two calls belongs to the call before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A lane begins: progress is read.
    Begin(Who),
    /// A lane that was fenced hears from the group that the partition is its own.
    Prove(Who),
    /// Records are read and taken.
    Take(Who, usize),
    /// What was prefetched is taken.
    TakePrefetched(Who),
    /// Records are read while a commit is under way.
    Prefetch(Who, usize),
    /// An idle lane writes a pending move, or looks at its link.
    Idle(Who),
    /// The next command of the inbox is carried out: ledger, states and log are read, its write is sent.
    CarryOut(Who),
    /// States are read, with their link; the batch is projected.
    ReadStates(Who),
    /// Dead letters are acknowledged; the commit is sent.
    Publish(Who),
    /// Dead letters nobody waited for arrive (a mutant).
    LetterLands(Who),
    /// The next call of a commit arrives at the store.
    Land(Who),
    /// The replies of a commit arrive.
    Answer(Who),
    /// A call whose sender does not wait for it any more arrives all the same.
    LandLate(usize),
    /// An owner learns that the partition is no longer its own.
    Revoked(Who),
    /// Fault: nobody waits any longer for the replies; the same is sent again.
    Timeout(Who),
    /// Fault: an owner is killed.
    Crash(Who),
    /// Fault: the partition goes to the other owner.
    Rebalance,
    /// The moment the store will fall back to, if it does.
    Keep,
    /// Fault: the store falls back.
    Lose,
}

impl Action {
    /// Whether it is a fault (or prepares one), and no part of the ordinary course of things.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Crash(_) | Self::Rebalance | Self::Keep | Self::Lose)
    }
}
