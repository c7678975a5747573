//! How often and how late a failed call is tried again.

use std::time::Duration;

/// The longest delay of a tier (DESIGN §7).
const DELAY_MAX: Duration = Duration::from_secs(30);
/// The shortest delay of a tier: below it a topic round trip is most of the wait.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Most tiers that a group may have; each is a topic.
const TIERS_MAX: usize = 8;
/// The longest `Retry-After` that is followed; what asks for more is asked again after it.
const AFTER_MAX: Duration = Duration::from_secs(3600);

/// The tiers of a group: after the first call so many more, each after its delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    delays: Vec<Duration>,
}

/// Why delays are none of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Too many topics.
    #[error("{0} retry tiers, expected at most {TIERS_MAX}: each is a topic")]
    TooMany(usize),
    /// A delay that is too short or too long.
    #[error("a retry tier of {} ms, expected {} to {} ms", .0.as_millis(), DELAY_MIN.as_millis(), DELAY_MAX.as_millis())]
    Delay(Duration),
    /// A delay that is not longer than the one before it.
    #[error("a retry tier of {} ms after one of {} ms: each has to be longer than the one before", .1.as_millis(), .0.as_millis())]
    Order(Duration, Duration),
}

/// What comes after a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for its next call.
    Wait(Place),
    /// That was the last one.
    GiveUp,
}

/// Where something waits: in a tier, and how much longer once the tier's delay is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which tier, from 0.
    pub tier: usize,
    /// What is left then: it goes round once more, to the place of that rest. Zero: it is due.
    pub rest: Duration,
}

impl Default for RetryPolicy {
    /// After the first call three more, after 1, 2 and 4 s (DESIGN §7).
    fn default() -> Self {
        Self { delays: [1, 2, 4].map(Duration::from_secs).to_vec() }
    }
}

impl RetryPolicy {
    /// A policy of these delays, the shortest first; none at all means that a failed call is not repeated.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(delays: Vec<Duration>) -> Result<Self, PolicyError> {
        if delays.len() > TIERS_MAX {
            return Err(PolicyError::TooMany(delays.len()));
        }
        if let Some(wrong) = delays.iter().find(|delay| !(DELAY_MIN..=DELAY_MAX).contains(*delay)) {
            return Err(PolicyError::Delay(*wrong));
        }
        if let Some(pair) = delays.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(PolicyError::Order(pair[0], pair[1]));
        }
        Ok(Self { delays })
    }

    /// The delay of each tier, the shortest first.
    #[must_use]
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// What comes after so many failed calls. `after` is what the one that was called asked for: then the next longer tier,
    /// and beyond the last one it goes round. It is followed for up to an hour.
    #[must_use]
    pub fn after(&self, calls: u32, after: Option<Duration>) -> Next {
        let own = usize::try_from(calls.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(delay) = self.delays.get(own) else { return Next::GiveUp };
        let wait = after.unwrap_or_default().min(AFTER_MAX).max(*delay);
        Next::Wait(self.place(wait))
    }

    /// Where something waits for so long at least: in the shortest tier that is long enough, else in the longest and round
    /// again. Never early.
    #[must_use]
    pub fn place(&self, wait: Duration) -> Place {
        let last = self.delays.len().saturating_sub(1);
        let tier = self.delays.iter().position(|delay| *delay >= wait).unwrap_or(last);
        let delay = self.delays.get(tier).copied().unwrap_or_default();
        Place { tier, rest: wait.saturating_sub(delay) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(tier: usize, rest_ms: u64) -> Next {
        Next::Wait(Place { tier, rest: ms(rest_ms) })
    }

    #[test]
    fn after_the_first_call_three_more_after_1_2_and_4_s() {
        let policy = RetryPolicy::default();
        let next = [1, 2, 3, 4, 99].map(|calls| policy.after(calls, None));
        assert_eq!(next, [at(0, 0), at(1, 0), at(2, 0), Next::GiveUp, Next::GiveUp]);
    }

    #[test]
    fn what_is_asked_for_takes_the_next_longer_tier_and_beyond_the_last_one_goes_round() {
        let policy = RetryPolicy::default();
        let asked = |calls, after| policy.after(calls, Some(ms(after)));
        assert_eq!(asked(1, 0), at(0, 0));
        assert_eq!(asked(1, 1_001), at(1, 0));
        assert_eq!(asked(2, 500), at(1, 0), "never sooner than the tier's own delay");
        assert_eq!(asked(1, 10_000), at(2, 6_000));
        assert_eq!(asked(1, 86_400_000), at(2, 3_596_000), "no longer than an hour");
        assert_eq!(asked(4, 10), Next::GiveUp);
    }

    #[test]
    fn delays_that_make_no_sense_are_refused() {
        let new = |delays: &[u64]| RetryPolicy::new(delays.iter().copied().map(ms).collect());
        assert_eq!(new(&[1_000, 1_000]), Err(PolicyError::Order(ms(1_000), ms(1_000))));
        assert_eq!(new(&[99]), Err(PolicyError::Delay(ms(99))));
        assert_eq!(new(&[30_001]), Err(PolicyError::Delay(ms(30_001))));
        assert_eq!(new(&[100, 200, 300, 400, 500, 600, 700, 800, 900]), Err(PolicyError::TooMany(9)));
        assert_eq!(new(&[]).map(|policy| policy.after(1, None)), Ok(Next::GiveUp));
    }

    proptest! {
        /// Round by round it waits for exactly as long as was asked, up to the last tier's delay, and never less.
        #[test]
        fn rounds_add_up(
            delays in prop::collection::btree_set(100_u64..=30_000, 1..=8),
            calls in 1_u32..10,
            after in prop::option::of(0_u64..4_000_000),
        ) {
            let policy = RetryPolicy::new(delays.iter().copied().map(ms).collect()).expect("sound");
            let own = delays.iter().nth(calls as usize - 1).copied();
            let (Some(own), mut next) = (own, policy.after(calls, after.map(ms))) else {
                prop_assert_eq!(policy.after(calls, after.map(ms)), Next::GiveUp);
                return Ok(());
            };
            let wanted = ms(own).max(ms(after.unwrap_or(0)).min(AFTER_MAX));
            let mut waited = Duration::ZERO;
            while let Next::Wait(place) = next {
                waited += policy.delays()[place.tier];
                if place.rest.is_zero() { break }
                next = Next::Wait(policy.place(place.rest));
            }
            prop_assert!(waited >= wanted, "{waited:?} of {wanted:?}");
            prop_assert!(waited < wanted + policy.delays()[policy.delays().len() - 1]);
        }
    }
}
