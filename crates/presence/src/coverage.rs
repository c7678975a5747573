//! How far a look at hot state can be trusted: up to which moment it shows everything that lay on the log.

use std::collections::VecDeque;

/// What a look covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The last moment of which everything is folded (monotonic); none where that is longer ago than is remembered.
    pub until_ms: Option<u64>,
    /// Some lane stands before where it stood: the store lost its tail, and shows what it folds again.
    pub went_back: bool,
}

/// Ends of the log by the moment they were read, and what progress says about them.
///
/// A look reads the ends of all partitions first, then the progress of the lanes that fold them, then hot state. What
/// lay on the log at a moment whose ends are below that progress is in what was read.
#[derive(Debug)]
pub struct Coverage {
    keep_ms: u64,
    /// By time, the newest last.
    ends: VecDeque<(u64, Vec<i64>)>,
    /// The furthest that each lane was seen.
    furthest: Vec<i64>,
}

impl Coverage {
    /// Remembers ends for `keep_ms`: a look that covers nothing younger than that covers nothing.
    #[must_use]
    pub fn new(keep_ms: u64) -> Self {
        Self { keep_ms, ends: VecDeque::new(), furthest: Vec::new() }
    }

    /// Notes that the lanes' partitions ended there at `at_ms` (monotonic, taken before they were asked for). Always in the
    /// same order of lanes.
    pub fn ends(&mut self, at_ms: u64, ends: Vec<i64>) {
        if self.ends.back().is_some_and(|(_, known)| known.len() != ends.len()) {
            self.clear();
        }
        self.ends.push_back((at_ms, ends));
        let oldest = at_ms.saturating_sub(self.keep_ms);
        while self.ends.front().is_some_and(|(then, _)| *then < oldest) {
            self.ends.pop_front();
        }
    }

    /// What is covered if the lanes have taken everything below `progress`. A lane that is on another log has none: it has
    /// taken nothing.
    pub fn covered(&mut self, progress: &[Option<i64>]) -> Covered {
        let taken = |ends: &Vec<i64>| {
            ends.len() == progress.len()
                && ends.iter().zip(progress).all(|(end, next)| next.is_some_and(|next| next >= *end))
        };
        let until_ms = self.ends.iter().rev().find(|(_, ends)| taken(ends)).map(|(at_ms, _)| *at_ms);
        self.furthest.resize(progress.len(), i64::MIN);
        let mut went_back = false;
        for (furthest, next) in self.furthest.iter_mut().zip(progress) {
            let next = next.unwrap_or(i64::MIN);
            went_back |= next < *furthest;
            *furthest = next.max(*furthest);
        }
        Covered { until_ms, went_back }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.furthest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(coverage: &mut Coverage, progress: &[Option<i64>]) -> Option<u64> {
        coverage.covered(progress).until_ms
    }

    #[test]
    fn a_look_covers_the_last_ends_that_every_lane_has_reached() {
        let mut coverage = Coverage::new(10_000);
        assert_eq!(until(&mut coverage, &[]), None);
        coverage.ends(1000, vec![10, 0]);
        coverage.ends(2000, vec![15, 3]);
        coverage.ends(3000, vec![15, 9]);
        assert_eq!(until(&mut coverage, &[Some(15), Some(9)]), Some(3000));
        assert_eq!(until(&mut coverage, &[Some(15), Some(8)]), Some(2000));
        assert_eq!(until(&mut coverage, &[Some(14), Some(99)]), Some(1000));
        assert_eq!(until(&mut coverage, &[Some(9), Some(99)]), None);
        assert_eq!(until(&mut coverage, &[None, Some(99)]), None);
    }

    #[test]
    fn ends_are_forgotten_with_time_and_with_another_number_of_lanes() {
        let mut coverage = Coverage::new(1500);
        coverage.ends(1000, vec![10]);
        coverage.ends(2000, vec![20]);
        coverage.ends(3000, vec![30]);
        assert_eq!(until(&mut coverage, &[Some(10)]), None);
        assert_eq!(until(&mut coverage, &[Some(20)]), Some(2000));
        coverage.ends(4000, vec![5, 5]);
        assert_eq!(until(&mut coverage, &[Some(99)]), None);
        assert_eq!(until(&mut coverage, &[Some(5), Some(5)]), Some(4000));
    }

    #[test]
    fn a_store_that_lost_its_tail_is_told_until_it_is_where_it_was() {
        let mut coverage = Coverage::new(10_000);
        coverage.ends(1000, vec![10, 10]);
        let told: Vec<bool> = [[10, 10], [10, 7], [11, 9], [11, 10]]
            .iter()
            .map(|progress| coverage.covered(&progress.map(Some)).went_back)
            .collect();
        assert_eq!(told, [false, true, true, false]);
    }
}
