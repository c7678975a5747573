//! Guarantees of handlers broken on purpose, in builds for tests only (`fleetlog-projection`'s mutants).

use std::time::Duration;

use fleetlog_handler::{Dispatcher, LaneId, LaneKind};
use fleetlog_projection::mutant::{Mutant, on};

/// What is committed: of each partition the lowest offset that is not done.
pub(super) fn committed<R: Clone, E>(
    offsets: Vec<(LaneId, i64)>,
    dispatcher: &Dispatcher<R, E>,
) -> Vec<(LaneId, i64)> {
    if !on(Mutant::HandlerCommitsAhead) {
        return offsets;
    }
    dispatcher.lanes().map(|(lane, next, _)| (lane, next)).collect()
}

/// What a topic is to the handler.
pub(super) fn kind(kind: LaneKind) -> LaneKind {
    match kind {
        LaneKind::Tier(_) if on(Mutant::HandlerTooEarly) => LaneKind::Tier(Duration::ZERO),
        kind => kind,
    }
}
