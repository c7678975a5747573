//! What was set aside is redriven while projectors are killed, stopped, frozen, joined and taken away.
//!
//! They begin with a version that rejects one in 16 events that it should take. At some moment the fix is released: who is
//! started from then on has it, and one after the other the rest are replaced. Commands are sent all the while
//! ([`Redriver`]), also to projectors that still reject. In one run of four hot state loses its tail as well, or a projector is
//! frozen beyond its session.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    faults::{Faults, process, tail::Tail, zombie::Zombie},
    fleet::Fleet,
    outcome::Check,
    redriver::Redriver,
};

/// How often everything is sent once more at the end before that is a finding.
const ROUNDS_MAX: usize = 12;
/// How long commands may take to be carried out when nothing strikes any more.
const CARRY_OUT_LIMIT: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(150);

/// Where projectors are made to die: at each step of a command, and of what goes on beside it.
const FAIL_POINTS: [&str; 14] = [
    "commands.begun",
    "commands.begun",
    "commands.published",
    "commands.published",
    "commands.published",
    "commands.committed",
    "commands.committed",
    "dead-letters.after",
    "commit.before",
    "redis.call",
    "sql.rows",
    "sql.committed",
    "commit.after",
    "lane.start.sought",
];

/// Rejecting and fixed projectors, and somebody who redrives.
pub(super) struct Redrive {
    /// Which strike is the fix's release.
    release_at: u32,
    strikes: u32,
    /// What strikes beside.
    also: Option<Box<dyn Faults>>,
    redriving: Option<(CancellationToken, AbortOnDropHandle<Result<Redriver>>)>,
}

impl Redrive {
    pub(super) fn draw(random: &mut StdRng) -> Self {
        let also: Option<Box<dyn Faults>> = match random.random_range(0..8) {
            0 => Some(Box::new(Tail::default())),
            1 => Some(Box::new(Zombie::default())),
            _ => None,
        };
        Self { release_at: random.random_range(1..=4), strikes: 0, also, redriving: None }
    }

    fn is_released(&self) -> bool {
        self.strikes >= self.release_at
    }

    async fn hit(&mut self, fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
        self.strikes += 1;
        if self.strikes == self.release_at {
            fleet.reject_wrongly(false);
        }
        if self.is_released()
            && random.random_bool(0.5)
            && let Some(index) = fleet.rejecting()
        {
            replace(fleet, random, index).await?;
            return Ok("replaced by a fixed one");
        }
        match &mut self.also {
            Some(also) if self.strikes == 2 || random.random_ratio(1, 4) => also.strike(fleet, random).await,
            _ => process::strike(fleet, random).await,
        }
    }
}

async fn replace(fleet: &mut Fleet, random: &mut StdRng, index: usize) -> Result<()> {
    if random.random_bool(0.5) {
        fleet.kill(index).await?;
    } else {
        fleet.terminate(index).await?;
    }
    fleet.restart().await
}

/// Until whatever could be taken is: what hangs on other events comes in by steps.
async fn to_the_end(mut redriver: Redriver, fleet: &mut Fleet) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let begun = Instant::now();
        loop {
            fleet.look_after().await?;
            let behind = redriver.behind(&fleet.world).await?;
            if behind.is_empty() {
                break;
            }
            if begun.elapsed() > CARRY_OUT_LIMIT {
                let said = fleet.said();
                let detail =
                    format!("commands not carried out within {CARRY_OUT_LIMIT:?}: {behind:?}\n{said}");
                fleet.found(Check::CaughtUp, detail);
                return Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        if !redriver.send_all_open(&fleet.world).await? {
            return Ok(());
        }
    }
    fleet.found(Check::CaughtUp, format!("redriven {ROUNDS_MAX} times, and entries still change"));
    Ok(())
}

impl Faults for Redrive {
    fn begin(&mut self, fleet: &mut Fleet, random: &mut StdRng) -> Result<()> {
        if !fleet.only_fail_points {
            fleet.fail_points = &FAIL_POINTS;
        }
        fleet.reject_wrongly(true);
        let stop = CancellationToken::new();
        let redriver = Redriver::new(fleet.world.kafka())?;
        let running = redriver.run(StdRng::seed_from_u64(random.random()), stop.clone());
        self.redriving = Some((stop, AbortOnDropHandle::new(tokio::spawn(running))));
        Ok(())
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        self.hit(fleet, random).boxed_local()
    }

    fn strikes_min(&self) -> u32 {
        4
    }

    /// The last that rejects is replaced, and nothing more is sent until all is taken: each letter is an event for the index of
    /// dead letters, which would never have caught up.
    fn heal<'a>(&'a mut self, fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            if let Some((stop, _)) = &self.redriving {
                stop.cancel();
            }
            fleet.reject_wrongly(false);
            while let Some(index) = fleet.rejecting() {
                fleet.terminate(index).await?;
                fleet.restart().await?;
            }
            Ok(())
        }
        .boxed_local()
    }

    fn strike_in_quiet<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        _random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<Option<&'static str>>> {
        async move {
            let (_, running) = self.redriving.take().context("somebody redrives")?;
            let redriver = running.await?.context("redriving")?;
            to_the_end(redriver, fleet).await?;
            Ok(Some("redriven to the end"))
        }
        .boxed_local()
    }

    fn redrives(&self) -> bool {
        true
    }
}
