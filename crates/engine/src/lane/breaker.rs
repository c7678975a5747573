//! The breaker of a lane: whether what is set aside is still a few poison events, or rather a wrong setting.
//!
//! Pure: it counts events of whole batches, in the order in which the lane takes them. Two things trip it: a run (so many
//! in a row, none taken between), and a ratio of the last events. The ratio is judged only over as many events as it is
//! defined for, so that the first events of a lane cannot trip it, however bad they are.

use std::collections::VecDeque;

/// When it trips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Most events set aside in a row.
    pub(crate) in_a_row_max: usize,
    /// Largest part of the last events that may be set aside; 1.0: all of them.
    pub(crate) ratio_max: f64,
    /// How many events the ratio is of, at least: whole batches.
    pub(crate) ratio_events: usize,
}

/// Why it tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trip {
    /// So many in a row.
    InARow(usize),
    /// So many of so many.
    Ratio { set_aside: usize, of: usize },
}

/// Counts what a lane takes and sets aside.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    limits: Limits,
    /// How many may still be set aside without being counted.
    spare: u64,
    in_a_row: usize,
    /// The last batches: events, and how many of them were set aside.
    batches: VecDeque<(usize, usize)>,
    events: usize,
    set_aside: usize,
}

impl Breaker {
    /// Of a lane that begins; `spare` set-asides pass before it counts.
    pub(crate) fn new(limits: Limits, spare: u64) -> Self {
        Self { limits, spare, in_a_row: 0, batches: VecDeque::new(), events: 0, set_aside: 0 }
    }

    /// Counts a batch of `events`, `set_aside` of which are to be set aside.
    ///
    /// # Errors
    /// It trips: these are too many.
    pub(crate) fn count(&mut self, events: usize, set_aside: usize) -> Result<(), Trip> {
        let spared = self.spared(set_aside);
        let (events, set_aside) = (events.saturating_sub(spared), set_aside - spared);
        if events == 0 {
            return Ok(());
        }
        self.in_a_row = if set_aside < events { 0 } else { self.in_a_row + set_aside };
        self.batches.push_back((events, set_aside));
        (self.events, self.set_aside) = (self.events + events, self.set_aside + set_aside);
        while let Some((old, _)) = self.batches.front()
            && self.events - old >= self.limits.ratio_events
        {
            let (old, old_set_aside) = self.batches.pop_front().unwrap_or_default();
            (self.events, self.set_aside) = (self.events - old, self.set_aside - old_set_aside);
        }
        self.judge()
    }

    /// Counts events that were taken for good and that the store then refused: of the last batches, so of the newest.
    ///
    /// # Errors
    /// It trips: these are too many.
    pub(crate) fn refused(&mut self, count: usize) -> Result<(), Trip> {
        let count = count - self.spared(count);
        if let Some((events, set_aside)) = self.batches.back_mut() {
            // Those of an older batch may be more than this one has: the ratio stays one.
            let more = count.min(*events - *set_aside);
            *set_aside += more;
            self.set_aside += more;
        }
        self.judge()
    }

    fn spared(&mut self, set_aside: usize) -> usize {
        let spared = usize::try_from(self.spare).unwrap_or(usize::MAX).min(set_aside);
        self.spare -= spared as u64;
        spared
    }

    fn judge(&self) -> Result<(), Trip> {
        let Limits { in_a_row_max, ratio_max, ratio_events } = self.limits;
        if self.in_a_row > in_a_row_max {
            return Err(Trip::InARow(self.in_a_row));
        }
        let (set_aside, of) = (self.set_aside, self.events);
        if of >= ratio_events && set_aside as f64 > ratio_max * of as f64 {
            return Err(Trip::Ratio { set_aside, of });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { in_a_row_max: 100, ratio_max: 0.5, ratio_events: 200 };

    #[test]
    fn a_few_poison_events_never_trip_it_however_they_begin() {
        let mut breaker = Breaker::new(LIMITS, 0);
        // A hundred, and nothing else yet: a ratio of one, over fewer events than it is defined for.
        assert_eq!(breaker.count(100, 100), Ok(()));
        for n in 0..1_000 {
            assert_eq!(breaker.count(10, if n < 10 { 0 } else { 5 }), Ok(()), "batch {n}");
        }
        assert_eq!(breaker.count(0, 0), Ok(()), "an empty batch says nothing");
    }

    #[test]
    fn a_run_trips_it_and_one_event_taken_ends_the_run() {
        let limits = Limits { ratio_max: 1.0, ..LIMITS };
        let mut breaker = Breaker::new(limits, 0);
        assert_eq!(breaker.count(100, 100), Ok(()));
        assert_eq!(breaker.clone().count(1, 1), Err(Trip::InARow(101)));
        assert_eq!(breaker.count(100, 99), Ok(()));
        assert_eq!(breaker.count(100, 100), Ok(()));
        assert_eq!(breaker.count(3, 3), Err(Trip::InARow(103)));
    }

    #[test]
    fn a_ratio_over_the_last_events_trips_it_and_what_is_older_is_forgotten() {
        let mut breaker = Breaker::new(LIMITS, 0);
        for _ in 0..100 {
            assert_eq!(breaker.count(10, 0), Ok(()));
        }
        let tripped = (1..100).find_map(|n| Some((n, breaker.count(10, 6).err()?)));
        // The first of those that are older are gone when so many of the last 200 are bad: 17 batches of six.
        assert_eq!(tripped, Some((17, Trip::Ratio { set_aside: 102, of: 200 })));
    }

    #[test]
    fn what_is_spared_is_not_counted_and_what_is_beyond_it_is() {
        let mut breaker = Breaker::new(LIMITS, 5_000);
        assert_eq!(breaker.count(4_990, 4_990), Ok(()));
        assert_eq!(breaker.count(110, 110), Ok(()), "ten are spared, a hundred counted");
        assert_eq!(breaker.count(1, 1), Err(Trip::InARow(101)));
    }

    #[test]
    fn what_the_store_refuses_counts_for_the_ratio() {
        let mut breaker = Breaker::new(LIMITS, 0);
        assert_eq!(breaker.refused(5), Ok(()), "nothing was taken yet");
        assert_eq!(breaker.count(1_000, 400), Ok(()));
        assert_eq!(breaker.refused(100), Ok(()));
        assert_eq!(breaker.refused(1), Err(Trip::Ratio { set_aside: 501, of: 1_000 }));
    }

    /// Batches: how many events, and how many of them are bad.
    fn batches() -> impl Strategy<Value = Vec<(usize, usize)>> {
        let batch = (0_usize..60).prop_flat_map(|events| (Just(events), 0..=events));
        prop::collection::vec(batch, 0..200)
    }

    /// The rule by its words, over all batches up to now.
    fn trips(limits: Limits, batches: &[(usize, usize)]) -> bool {
        let in_a_row: usize = batches
            .iter()
            .rev()
            .filter(|(events, _)| *events > 0)
            .take_while(|(events, bad)| events == bad)
            .map(|(_, bad)| bad)
            .sum();
        let (mut events, mut bad) = (0, 0);
        for (more, more_bad) in batches.iter().rev() {
            if events >= limits.ratio_events {
                break;
            }
            (events, bad) = (events + more, bad + more_bad);
        }
        in_a_row > limits.in_a_row_max
            || (events >= limits.ratio_events && bad as f64 > limits.ratio_max * events as f64)
    }

    proptest! {
        #[test]
        fn it_trips_exactly_when_the_rule_says_so(
            batches in batches(),
            in_a_row_max in 1_usize..200,
            ratio_max in 0.05_f64..=1.0,
            ratio_events in 1_usize..400,
        ) {
            let limits = Limits { in_a_row_max, ratio_max, ratio_events };
            let mut breaker = Breaker::new(limits, 0);
            for (n, (events, bad)) in batches.iter().enumerate() {
                let tripped = breaker.count(*events, *bad);
                prop_assert_eq!(tripped.is_err(), *events > 0 && trips(limits, &batches[..=n]), "batch {}", n);
                if tripped.is_err() {
                    break;
                }
            }
        }

        /// Fewer bad events than either limit asks for: no order and no cut of them trips it.
        #[test]
        fn fewer_than_either_limit_never_trip_it(batches in batches(), few in 0_usize..=100) {
            let mut left = few;
            let mut breaker = Breaker::new(LIMITS, 0);
            for (events, bad) in batches {
                let bad = bad.min(left);
                left -= bad;
                prop_assert_eq!(breaker.count(events, bad), Ok(()));
            }
        }

        /// However they are cut: so many more bad events pass, and then the lane stops as any other does.
        #[test]
        fn spared_ones_pass_and_no_more(spare in 0_u64..500, cuts in prop::collection::vec(1_usize..60, 40..60)) {
            let mut breaker = Breaker::new(LIMITS, spare);
            let mut seen = 0;
            for cut in cuts {
                seen += cut;
                let tripped = breaker.count(cut, cut).is_err();
                prop_assert_eq!(tripped, seen as u64 > spare + LIMITS.in_a_row_max as u64, "after {}", seen);
                if tripped {
                    break;
                }
            }
        }
    }
}
