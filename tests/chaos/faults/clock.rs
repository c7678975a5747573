//! Wall clocks of projectors that jump, forth and back, by little and by days.

use anyhow::Result;
use fleetlog_testkit::{Stack, WallClock};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    faults::{Faults, Ground},
    fleet::Fleet,
};

/// How far clocks go wrong at most, in seconds: some seconds, an hour, a day, a year.
const JUMPS_SECONDS: [i64; 4] = [30, 3_600, 86_400, 31_536_000];

/// Projectors whose wall clock is wrong, and wrong in another way a moment later. Their stopwatches are right, and so
/// are the clocks of servers and load.
pub(super) struct Clock {
    clock: WallClock,
}

impl Clock {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { clock: WallClock::new()? })
    }
}

impl Faults for Clock {
    fn ground(&self) -> Ground {
        let variables = self.clock.variables().map(|(name, value)| (name.to_owned(), value));
        Ground { projectors: variables.into(), ..Ground::on(Stack::from_env()) }
    }

    fn strike<'a>(
        &'a mut self,
        _fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            let most = JUMPS_SECONDS.choose(random).copied().unwrap_or_default();
            let seconds = random.random_range(-most..=most);
            self.clock.jump_to(seconds)?;
            Ok(if seconds < 0 { "wall clock in the past" } else { "wall clock in the future" })
        }
        .boxed_local()
    }

    fn pause_ms(&self) -> std::ops::Range<u64> {
        300..1500
    }

    fn mixes_with_process(&self) -> bool {
        true
    }
}
