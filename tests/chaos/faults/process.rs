//! Faults of projectors: killed, stopped, frozen, joined and taken away.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{faults::Faults, fleet::Fleet};

/// How long a projector may take to reach its fail point; dead letters may not come for longer.
const FAIL_POINT_LIMIT: Duration = Duration::from_secs(4);

/// Kills, stops, fail points, bursts of members.
#[derive(Debug, Default)]
pub(crate) struct Process;

impl Faults for Process {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        strike(fleet, random).boxed_local()
    }
}

/// One fault of this family, whatever else a run has.
pub(crate) async fn strike(fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
    fleet.fill_up()?;
    let index = random.random_range(0..fleet.len());
    if fleet.only_fail_points {
        return fail_point(fleet, random, index).await;
    }
    match random.random_range(0..10) {
        0..=2 => {
            fleet.kill(index).await?;
            fleet.restart().await?;
            Ok("kill -9")
        }
        3 => {
            fleet.kill(index).await?;
            fleet.start()?;
            pause(random, 0..600).await;
            fleet.kill(fleet.len() - 1).await?;
            fleet.restart().await?;
            Ok("kill -9 while starting")
        }
        4..=5 => fail_point(fleet, random, index).await,
        6 => {
            fleet.terminate(index).await?;
            fleet.restart().await?;
            Ok("SIGTERM")
        }
        7 => {
            fleet.start()?;
            pause(random, 0..800).await;
            fleet.terminate(fleet.len() - 1).await?;
            Ok("SIGTERM while starting")
        }
        8 => {
            fleet.freeze(index)?;
            pause(random, 100..1500).await;
            fleet.thaw(index)?;
            Ok("SIGSTOP, short")
        }
        _ => burst(fleet, random).await,
    }
}

/// One is replaced by one that dies at a fail point, and that by an ordinary one.
async fn fail_point(fleet: &mut Fleet, random: &mut StdRng, index: usize) -> Result<&'static str> {
    let point = fleet.fail_points.choose(random).context("there are fail points")?;
    let nth = random.random_range(1..=12);
    fleet.kill(index).await?;
    // What it meets is poisoned more than usual: set-asides are part of a step.
    fleet.poisoner.burst(random, 8).await?;
    fleet.start_failing(point, nth)?;
    let died = fleet.last_dies(FAIL_POINT_LIMIT).await?;
    fleet.restart().await?;
    if died {
        fleet.note(&format!("  at {point}"));
    }
    Ok(if died { "kill -9 at a fail point" } else { "kill -9" })
}

/// Up to three join at once, and are gone again soon, in any order and in either way.
async fn burst(fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
    let joining = random.random_range(1..=3);
    for _ in 0..joining {
        fleet.start()?;
        pause(random, 0..300).await;
    }
    pause(random, 0..2000).await;
    for _ in 0..joining {
        let leaving = random.random_range(0..fleet.len());
        if random.random_bool(0.5) {
            fleet.kill(leaving).await?;
        } else {
            fleet.terminate(leaving).await?;
        }
    }
    Ok("joining and leaving")
}

/// Lets a random time pass.
pub(crate) async fn pause(random: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
}
