//! What a seed decides before anything runs.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::faults::Family;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Decides everything below, and every draw of the run.
    pub(crate) seed: u64,
    /// Which faults.
    pub(crate) family: Family,
    /// How many projectors are to run.
    pub(crate) processes: usize,
    /// How many robots send.
    pub(crate) units: u32,
    /// Events per second.
    pub(crate) rate: u32,
    /// How long load runs and faults strike, in milliseconds.
    pub(crate) load_ms: u64,
    /// How many poison records and repeats are sent.
    pub(crate) poisons: usize,
    /// The guarantee broken on purpose, if one is.
    pub(crate) mutant: Option<String>,
}

impl Plan {
    /// The plan of a seed, and the random numbers of its run.
    pub(crate) fn of(seed: u64) -> (Self, StdRng) {
        let mut random = StdRng::seed_from_u64(seed);
        let all: u32 = Family::WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = random.random_range(0..all);
        let family = Family::WEIGHTS.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let plan = Self {
            seed,
            family: family.unwrap().0,
            processes: random.random_range(1..=3),
            units: random.random_range(10..=60),
            rate: random.random_range(150..=500),
            load_ms: random.random_range(7_000..12_000),
            poisons: random.random_range(10..=40),
            mutant: None,
        };
        (plan, random)
    }

    /// The same with a family of one's choice.
    pub(crate) fn of_family(seed: u64, family: Family) -> (Self, StdRng) {
        let (plan, random) = Self::of(seed);
        (Self { family, ..plan }, random)
    }
}
