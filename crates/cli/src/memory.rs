//! How much memory each projection may take.

use fleetlog_projection::{MapProjector as _, RecordProjector as _};
use fleetlog_projections::{DeadLetterActions, DeadLetters, Described, SinkKind};

use crate::config::Config;

/// How the process's memory is shared out between its projections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What is shared out by weight.
    bytes: usize,
    /// The sum of the weights of what runs.
    weights: usize,
}

/// What each of the projections takes that have next to nothing to do: dead letters, and actions on them.
const SMALL_BYTES: usize = 8 << 20;

/// What each handler takes: it holds no more than is under way, and what is next.
pub(crate) const HANDLER_BYTES: usize = 32 << 20;

/// What the process is reckoned to take before there is anything to do: program, threads, clients and their connections.
const IDLE_BYTES: usize = 60 << 20;

impl Memory {
    /// Of the projections that run here, beside so many handlers.
    pub(crate) fn among(config: &Config, chosen: &[Described], handlers: usize) -> Self {
        let bytes_max = usize::try_from(config.run.memory_bytes_max).unwrap_or(usize::MAX);
        let (small, others): (Vec<&Described>, Vec<&Described>) =
            chosen.iter().partition(|projection| Self::is_small(projection.id));
        let weights = others.into_iter().map(|projection| Self::weight(projection.sink)).sum();
        let others_bytes = IDLE_BYTES + small.len() * SMALL_BYTES + handlers * HANDLER_BYTES;
        Self { bytes: bytes_max.saturating_sub(others_bytes), weights }
    }

    fn is_small(id: &str) -> bool {
        [DeadLetters::ID, DeadLetterActions::ID].contains(&id)
    }

    /// Hot state needs room for the states of its units, or every event is a write of its own; history gains nothing
    /// from batches beyond a few thousand rows.
    fn weight(kind: SinkKind) -> usize {
        match kind {
            SinkKind::Hot => 3,
            SinkKind::History => 2,
        }
    }

    /// How many bytes a projection may take.
    pub(crate) fn share(self, id: &str, kind: SinkKind) -> usize {
        if Self::is_small(id) { SMALL_BYTES } else { self.bytes / self.weights.max(1) * Self::weight(kind) }
    }
}
