//! When a lane writes what it has projected, and how much of it at a time.

use std::{sync::Arc, time::Duration};

use fleetlog_projection::{Projection, Sink, Writes};

use super::{
    Lane, Work,
    ahead::{Round, Tally},
    now,
};
use crate::{fault::Interrupt, ports::Schemas};

/// Writes are not held for less.
const HOLD_MIN: Duration = Duration::from_millis(100);
/// A lane that had nothing to take for so long is not behind.
const HOLD_UNFED: Duration = Duration::from_millis(50);
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
        let bytes_max = self.shares().piece_bytes;
        let entities =
            self.caught("the last batches", || projection.changes(cache, &mut now_due.touched, bytes_max))?;
        let mut set_aside = std::mem::take(&mut now_due.set_aside);
        if !entities.is_empty() {
            // States are written as they are by now: nothing that they cover may be missing in the ledger.
            set_aside.append(&mut ahead.set_aside);
        }
        let writes = Writes { entities, rows: std::mem::take(&mut now_due.rows), set_aside };
        let is_last = projection.touched_entities(&now_due.touched) == 0;
        let progress = if is_last { *reach } else { *core.progress() };
        let unit = core.unit_to(progress, writes, now());
        let (sources, tally) = match round.take_if(|_| is_last) {
            Some(Round { ahead, .. }) => (ahead.sources, ahead.tally),
            None => (Vec::new(), Tally { write_bytes: bytes_max, ..Tally::default() }),
        };
        self.tidy(work);
        work.flight = Some(self.fly(unit, sources, tally));
        Ok(())
    }

    /// A lane that is behind holds its write for a tenth of that: the more events a write covers, the fewer writes. What
    /// readers see was old before and is hardly older for it. Not at the end of the log, not beyond its room, and not when
    /// nothing comes: what is old by its time alone (a sender's clock, something brought in later) is not behind.
    fn holds(&self, work: &Work<P, C::Decode>) -> bool {
        let ahead = &work.ahead;
        let (Some((since, last)), Some(newest)) = (ahead.added, ahead.tally.recorded_at.last()) else {
            return false;
        };
        let behind_ms = u64::try_from(now().0.saturating_sub(newest.0)).unwrap_or_default();
        let hold = Duration::from_millis((behind_ms / 10).min(self.shared.config.hold_ms_max));
        let is_fed = self.feed.held_bytes() > 0 || last.elapsed() < HOLD_UNFED;
        let has_room = !self.room(work).is_none() && work.cached_bytes <= self.shares().cache_bytes;
        hold >= HOLD_MIN && since.elapsed() < hold && is_fed && has_room && !self.feed.at_end()
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
