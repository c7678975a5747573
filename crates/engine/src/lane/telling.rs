//! What is logged of a lane; of set-asides each with its position, reason and trace, but never a flood of lines.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fleetlog_projection::{LaneId, SetAside};
use tracing::warn;

use crate::trace::{header, trace_id};

/// A line about a lane, with what it is about as fields.
macro_rules! tell {
    ($level:ident, $lane:expr, $($text:tt)+) => {
        $level!(
            projection = $lane.projection,
            lane = %$lane,
            topic = $lane.topic,
            partition = $lane.partition,
            $($text)+
        )
    };
}
pub(super) use tell;

/// Lines that a lane may log at once, and how long it takes to be allowed one more.
const BURST: u32 = 10;
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest text of a line's detail, in bytes; all of it is in the dead letter.
const DETAIL_BYTES_MAX: usize = 500;

/// Bounds the lines of one lane.
#[derive(Debug, Default)]
pub(crate) struct Telling(Mutex<Allowance>);

/// How many lines may be logged now. Time is passed in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Allowance {
    /// Lines logged lately; one is forgotten each [`LINE_INTERVAL`].
    logged: u32,
    /// Since when.
    since: Option<Instant>,
    /// What was not logged since the last line.
    unsaid: u64,
}

impl Allowance {
    /// Whether a line may be logged now, and how many before it were not.
    fn line(&mut self, now: Instant) -> Option<u64> {
        self.forget(now);
        if self.logged >= BURST {
            self.unsaid += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.unsaid))
    }

    /// What was not logged, to be said once lines are allowed again.
    fn rest(&mut self, now: Instant) -> Option<u64> {
        self.forget(now);
        (self.unsaid > 0 && self.logged < BURST).then(|| std::mem::take(&mut self.unsaid))
    }

    fn forget(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let intervals = now.saturating_duration_since(since).as_secs() / LINE_INTERVAL.as_secs();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        if intervals > 0 {
            self.logged = self.logged.saturating_sub(intervals);
            self.since = Some(now);
        }
    }
}

impl Telling {
    /// Logs what a write has set aside.
    pub(super) fn set_aside(&self, lane: &LaneId, set_aside: &[SetAside], now: Instant) {
        for aside in set_aside {
            let allowed = self.allowance().line(now);
            if let Some(unsaid) = allowed {
                tell_set_aside(lane, aside, unsaid);
            }
        }
    }

    /// Says how many were not logged, once there is quiet.
    pub(super) fn rest(&self, lane: &LaneId, now: Instant) {
        if let Some(unsaid) = self.allowance().rest(now) {
            tell!(warn, lane, unsaid, "more events were set aside than logged here: fleetlog dlq list");
        }
    }

    fn allowance(&self) -> std::sync::MutexGuard<'_, Allowance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_set_aside(lane: &LaneId, aside: &SetAside, unsaid: u64) {
    let SetAside { record, reject, event_type } = aside;
    tell!(
        warn,
        lane,
        offset = record.offset,
        reason = reject.reason.as_str(),
        event_type = event_type.as_deref(),
        event_id = header(record, "ce_id"),
        trace_id = trace_id(record),
        unsaid = (unsaid > 0).then_some(unsaid),
        "set aside: {}",
        shortened(&reject.detail)
    );
}

fn shortened(text: &str) -> &str {
    let end = (0..=DETAIL_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_what_was_not_said_is_counted() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let lines = (0..1000).filter(|_| allowance.line(start).is_some()).count();
        assert_eq!(lines, 10);
        assert_eq!(allowance.rest(start), None, "lines are spent");
        let later = start + Duration::from_secs(2);
        assert_eq!(allowance.line(later), Some(990), "the next line says how many there were");
        assert_eq!(allowance.line(later), Some(0));
        assert_eq!(allowance.line(later), None);
        assert_eq!(allowance.rest(later + Duration::from_secs(1)), Some(1));
        assert_eq!(allowance.rest(later + Duration::from_secs(1)), None);
    }

    #[test]
    fn lines_are_allowed_again_one_a_second_however_often_it_is_asked() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let lines =
            (0..10_000).filter(|ms| allowance.line(start + Duration::from_millis(*ms)).is_some()).count();
        assert_eq!(lines, 10 + 9);
    }

    #[test]
    fn a_detail_is_cut_between_characters() {
        let long = "ü".repeat(400);
        assert_eq!(shortened(&long).len(), 500);
        assert_eq!(shortened("short"), "short");
    }
}
