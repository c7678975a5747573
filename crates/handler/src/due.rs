//! When something in a retry tier is due, whatever the clock of this machine says.

use std::time::{Duration, Instant};

use fleetlog_event::TimestampMs;

/// How much slower than ours a broker's clock may run, in thousandths: twice what NTP corrects a clock by (500 ppm each).
const DRIFT_PER_MILLE: u32 = 1;
/// After how long the broker is asked again: the drift is 10 ms by then.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// What is known of a broker's clock, by which retry topics stamp what is appended (`LogAppendTime`). A record is due at its
/// stamp plus its tier's delay *by that clock*. This machine's wall clock may stand or jump as it likes: only the time that
/// passed since an append was acknowledged is measured here, and that by the clock that cannot jump.
///
/// Never early: at the moment of its acknowledgement the broker's clock was at the stamp or past it, and no clock that is
/// disciplined (NTP) runs slower than another by more than [`DRIFT_PER_MILLE`]. Late by the acknowledgement's way back, and by
/// that drift since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerClock {
    heard: Option<(TimestampMs, Instant)>,
}

impl BrokerClock {
    /// An append of ours got this stamp; `now` is when that was told. The newest counts: the broker's clock may have been set.
    pub fn heard(&mut self, stamp: TimestampMs, now: Instant) {
        self.heard = Some((stamp, now));
    }

    /// What the broker's clock shows at least; none before anything was heard.
    #[must_use]
    pub fn at_least(&self, now: Instant) -> Option<TimestampMs> {
        let (stamp, then) = self.heard?;
        let passed = now.saturating_duration_since(then);
        let passed = passed.saturating_sub(passed * DRIFT_PER_MILLE / 1_000);
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        Some(TimestampMs(stamp.0.saturating_add(passed)))
    }

    /// Whether it was heard so long ago, if ever, that what it says is to be renewed before something hangs on it.
    #[must_use]
    pub fn is_stale(&self, now: Instant) -> bool {
        self.heard.is_none_or(|(_, then)| now.saturating_duration_since(then) > STALE_AFTER)
    }

    /// How long to wait until what was stamped then has lain for `delay`; zero if it is due, none before anything was heard.
    #[must_use]
    pub fn until_due(&self, stamp: TimestampMs, delay: Duration, now: Instant) -> Option<Duration> {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let left = stamp.0.saturating_add(delay_ms).saturating_sub(self.at_least(now)?.0);
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn before_anything_was_heard_nothing_is_due() {
        assert_eq!(BrokerClock::default().until_due(TimestampMs(0), Duration::ZERO, Instant::now()), None);
    }

    #[test]
    fn what_lay_there_before_a_restart_keeps_its_time() {
        let (mut clock, now) = (BrokerClock::default(), Instant::now());
        clock.heard(TimestampMs(10_000), now);
        let due = |stamp, passed| {
            let now = now + Duration::from_millis(passed);
            clock.until_due(TimestampMs(stamp), Duration::from_secs(4), now)
        };
        assert_eq!(due(5_000, 0), Some(Duration::ZERO));
        assert_eq!(due(7_500, 0), Some(Duration::from_millis(1_500)));
        assert_eq!(due(7_500, 1_500), Some(Duration::from_millis(2)), "its clock may be slower than ours");
        assert_eq!(due(7_500, 1_502), Some(Duration::ZERO));
    }

    proptest! {
        /// With a broker whose clock is far off ours, and acknowledgements that take their time: never due too early, and
        /// late by no more than the way back of the last one.
        #[test]
        fn never_early(
            skew_ms in -100_000_000_i64..100_000_000,
            acks in prop::collection::vec((0_u64..5_000, 0_u64..500), 1..10),
            appended in 0_u64..50_000,
            delay in 100_u64..30_000,
        ) {
            // `real` is true time since the start; the broker shows it with its skew.
            let start = Instant::now();
            let broker = |real: u64| TimestampMs(skew_ms + i64::try_from(real).expect("small"));
            let (mut clock, mut real, mut way_back) = (BrokerClock::default(), 0, 0);
            for (pause, back) in acks {
                real += pause;
                let stamp = broker(real);
                real += back;
                clock.heard(stamp, start + Duration::from_millis(real));
                way_back = back;
            }
            let due = appended + delay;
            let asked = real.max(appended);
            let wait = clock.until_due(broker(appended), Duration::from_millis(delay), start + Duration::from_millis(asked));
            let called = asked + u64::try_from(wait.expect("heard").as_millis()).expect("small");
            prop_assert!(called >= due, "called at {called}, due at {due}");
            let drift = 2 + (due.max(asked) - real) / 500;
            prop_assert!(called <= due.max(asked) + way_back + drift);
        }
    }
}
