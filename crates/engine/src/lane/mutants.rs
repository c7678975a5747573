//! What engine mutants do (see [`fleetlog_projection::mutant`]): nothing at all in an ordinary build.

use fleetlog_projection::{
    LaneId, Link, Projection, Sink, SinkError, UnitOfWork, mutant::Mutant, mutant::on,
};

use super::Work;

/// Carries over *Fenced* what must not outlive it.
pub(super) struct Survivor<P: Projection, D>(Option<Work<P, D>>);

impl<P: Projection, D> Survivor<P, D> {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// A lane begins again.
    pub(super) fn enter(&mut self, work: &mut Work<P, D>) {
        let Some(mut before) = self.0.take() else { return };
        #[cfg(feature = "mutants")]
        work.core.inherit(&mut before.core);
        if on(Mutant::CacheKept) {
            std::mem::swap(&mut work.cache, &mut before.cache);
        }
    }

    /// A lane was interrupted.
    pub(super) fn leave(&mut self, mut work: Work<P, D>) {
        if on(Mutant::CacheKept) || on(Mutant::DedupLearnsEarly) {
            (work.flight, work.round, work.ahead) = (None, None, super::Ahead::default());
            self.0 = Some(work);
        }
    }
}

/// The nonce of a new chain: never used before.
pub(super) fn nonce() -> u64 {
    if on(Mutant::NonceReused) { u64::from(std::process::id()) } else { rand::random() }
}

/// How much a piece of a round may be, where it goes in pieces. The few entities of a test would fit one: with a mutant
/// that is about pieces each entity is one.
pub(super) fn piece_bytes(bytes_max: usize) -> usize {
    let about_pieces =
        [Mutant::ProgressWithFirstPiece, Mutant::SetAsidesWithLastPiece, Mutant::SetAsidesBeyondLeft];
    if bytes_max < usize::MAX && about_pieces.into_iter().any(on) { 0 } else { bytes_max }
}

/// Breaks `unit`'s place in the chain, or its atomicity.
///
/// # Errors
/// As the sink's.
pub(super) async fn before_commit<S: Sink>(
    sink: &S,
    unit: &mut UnitOfWork<S::Write>,
) -> Result<(), SinkError> {
    if on(Mutant::LinkCheckOff) {
        unit.follows = stored_link(sink, &unit.lane).await?;
    }
    if on(Mutant::ProgressBeforeData) {
        let (leaves, lane, progress) = (unit.leaves.part(u32::MAX), unit.lane.clone(), unit.progress);
        let (entities, rows, set_aside, entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let follows = unit.follows.replace(leaves);
        let made_at = unit.made_at;
        let moved =
            UnitOfWork { lane, follows, leaves, progress, entities, rows, set_aside, entries, made_at };
        sink.commit(&moved).await?;
        fail::fail_point!("commit.between");
    }
    Ok(())
}

async fn stored_link<S: Sink>(sink: &S, lane: &LaneId) -> Result<Option<Link>, SinkError> {
    Ok(sink.read(lane, &[]).await?.link)
}
