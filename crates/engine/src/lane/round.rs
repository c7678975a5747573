//! When a lane writes what it has projected, and how much of it at a time.

use std::{sync::Arc, time::Duration};

use fleetlog_projection::{Due, Projection, Sink};
use tokio::time::Instant;

use super::{
    Lane, Work,
    ahead::{Ahead, Round, Tally},
    mutants, now,
};
use crate::{
    EngineConfig,
    fault::Interrupt,
    memory::{LaneShares, WritesOf},
    ports::Schemas,
};

/// No rate is told of a shorter time: what lay in the buffer is taken at once.
const RATE_OVER_MIN: Duration = Duration::from_millis(50);
/// How often a lane that holds its write looks whether more is to come.
const HOLD_LOOK: Duration = Duration::from_millis(20);

/// When a lane writes.
pub(super) struct Pace {
    /// The next write does not begin before.
    write_at: Instant,
    /// More than a moment's work lay before the lane, and it has not been at the end of the log since.
    catches_up: bool,
}

impl Pace {
    /// Of a lane that begins.
    pub(super) fn new() -> Self {
        Self { write_at: Instant::now(), catches_up: false }
    }

    /// When to look again whether what is held is due.
    pub(super) fn look_at(&self) -> Instant {
        let now = Instant::now();
        if self.write_at > now { self.write_at } else { now + HOLD_LOOK }
    }
}

/// Room for more records in what the next write covers.
pub(super) struct Room {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Room {
    pub(super) fn is_none(&self) -> bool {
        self.events == 0 || self.bytes == 0
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Writes what was projected, if no write is under way and it is time: what there is now makes a round, of one write,
    /// or of several where the states of its entities are more than one may carry.
    pub(super) fn launch(self: &Arc<Self>, work: &mut Work<P, C::Decode>) -> Result<(), Interrupt> {
        if work.flight.is_some() {
            return Ok(());
        }
        if work.round.is_none() && (work.ahead.is_empty() || self.holds(work)) {
            return Ok(());
        }
        let Work { core, cache, ahead, round, .. } = &mut *work;
        let Round { reach, ahead: now_due } =
            round.get_or_insert_with(|| Round { reach: core.reach(), ahead: std::mem::take(ahead) });
        let projection = &self.shared.projection;
        let before = projection.touched_entities(&now_due.touched);
        let bytes_max = mutants::piece_bytes(self.shares().piece_bytes);
        let entities =
            self.caught("the last batches", || projection.changes(cache, &mut now_due.touched, bytes_max))?;
        let after = projection.touched_entities(&now_due.touched);
        let is_last = after == 0;
        let Ahead { rows, set_aside, tally, .. } = now_due;
        if !is_last {
            tally.give_back(before, after);
        }
        let due = Due { reach: *reach, is_last, rows, set_aside, beyond: &mut ahead.set_aside };
        let unit = core.piece(entities, due, now());
        let (sources, tally) = match round.take_if(|_| is_last) {
            Some(Round { ahead, .. }) => (ahead.sources, ahead.tally),
            None => (Vec::new(), Tally { write_bytes: bytes_max, ..Tally::default() }),
        };
        self.tidy(work);
        work.pace.write_at = Instant::now() + self.shared.sink.write_interval();
        work.flight = Some(self.fly(unit, sources, tally));
        Ok(())
    }

    /// Whether what was projected waits: for its turn, where writes of the sink keep a distance, or because the lane catches
    /// up. The more events a write covers, the fewer writes; and until such a lane is at the end of the log, what readers see
    /// is old anyway. Never beyond its room.
    fn holds(&self, work: &mut Work<P, C::Decode>) -> bool {
        let Some(since) = work.ahead.since else { return false };
        if self.room(work).is_none() || work.cached_bytes > self.shares().cache_bytes {
            return false;
        }
        let held = since.elapsed();
        work.pace.catches_up = self.catches_up(work, held);
        // A lane that comes to rest for its commands waits for nothing more.
        let is_hurried = work.orders.are_due();
        let hold =
            if is_hurried { Duration::ZERO } else { Duration::from_millis(self.shared.config.hold_ms_max) };
        Instant::now() < work.pace.write_at || (work.pace.catches_up && held < hold)
    }

    /// Whether more lies before the lane than it takes in a moment (`catch_up_ms`), at the rate at which it took what it
    /// `held` for so long; from then on until it is at the end, so that the last of it goes in one write too. The end is that
    /// of the last look at it: a lane that keeps up has it behind itself.
    fn catches_up(&self, work: &Work<P, C::Decode>, held: Duration) -> bool {
        let rest = self.status.end().map_or(0, |end| end - work.core.cursor());
        if rest <= 0 || self.feed.at_end() {
            return false;
        }
        let moment = Duration::from_millis(self.shared.config.catch_up_ms).as_secs_f64();
        let taken = work.ahead.tally.recorded_at.len() as f64;
        work.pace.catches_up || rest as f64 * held.max(RATE_OVER_MIN).as_secs_f64() > taken * moment
    }

    /// What may still be taken ahead of the write under way.
    pub(super) fn room(&self, work: &Work<P, C::Decode>) -> Room {
        let EngineConfig { batch_events_max, batch_bytes_max, .. } = *self.shared.config;
        let waiting = work.round.as_ref().map_or(0, |round| round.ahead.tally.write_bytes);
        let held_bytes = waiting + work.ahead.tally.write_bytes;
        Room {
            events: batch_events_max.saturating_sub(work.ahead.items(&self.shared.projection)),
            bytes: self.shares().batch_room(held_bytes).min(batch_bytes_max),
        }
    }

    pub(super) fn writes_of() -> WritesOf {
        match (size_of::<P::Cache>() > 0, S::IN_PARTS) {
            (false, _) => WritesOf::Rows,
            (true, false) => WritesOf::States,
            (true, true) => WritesOf::StatesInPieces,
        }
    }

    /// What this lane may hold of each kind.
    pub(super) fn shares(&self) -> LaneShares {
        LaneShares::of(self.feed.lane_bytes_max(), self.dedup_span_offsets, Self::writes_of())
    }

    /// Bounds the cache by what is written, or on its way to the store: what is needed again is read again, in one call a
    /// batch. An eighth more than it must, so that not every write has something to forget.
    fn tidy(&self, work: &mut Work<P, C::Decode>) {
        let bytes_max = self.shares().cache_bytes;
        if work.cached_bytes > bytes_max {
            let excess = work.cached_bytes - bytes_max + bytes_max / 8;
            let forgotten = self.shared.projection.forget(&mut work.cache, excess);
            work.cached_bytes = work.cached_bytes.saturating_sub(forgotten);
        }
    }
}
