//! A projector that is frozen until the broker has given its partitions away, and wakes up in the middle of what it
//! did: its writes must be refused, and it must not push out who took over.

use std::time::Duration;

use anyhow::Result;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    faults::{Faults, process},
    fleet::{Fleet, SESSION_TIMEOUT},
    outcome::Check,
};

/// Where one is held in the middle of a step, with a write in hand that is not sent yet.
const HELD_AT: [&str; 4] = ["step.states-read", "step.projected", "commit.before", "redis.call"];
/// How long it is held there: it goes on as soon as it is thawed.
const HELD: Duration = Duration::from_secs(9);
/// How long a zombie may take to find out that it is one.
const WAKE: Duration = Duration::from_secs(3);

/// Frozen anywhere, or in the middle of a step.
#[derive(Debug, Default)]
pub(crate) struct Zombie {
    strikes: u32,
}

impl Faults for Zombie {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            // Somebody has to take over.
            fleet.at_least(2)?;
            self.strikes += 1;
            match self.strikes {
                1 => in_mid_step(fleet, random).await,
                strikes if strikes % 2 == 1 => anywhere(fleet, random).await,
                _ => process::strike(fleet, random).await,
            }
        }
        .boxed_local()
    }
}

async fn anywhere(fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
    let index = random.random_range(0..fleet.len());
    fleet.freeze(index)?;
    tokio::time::sleep(SESSION_TIMEOUT).await;
    process::pause(random, 500..2000).await;
    fleet.thaw(index)?;
    Ok("SIGSTOP beyond the session")
}

/// One is made to stand still with a write in hand, then frozen as a whole: when it is thawed its session is over,
/// and the write goes out at once.
async fn in_mid_step(fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
    let point = HELD_AT.choose(random).copied().unwrap_or("commit.before");
    let nth = random.random_range(2..=8);
    let victim = random.random_range(0..fleet.len());
    fleet.kill(victim).await?;
    fleet.start_sleeping(point, nth, HELD)?;
    let zombie = fleet.len() - 1;
    process::pause(random, 1200..2500).await;
    fleet.until_assigned(zombie, HELD / 2).await;
    fleet.freeze(zombie)?;
    tokio::time::sleep(SESSION_TIMEOUT).await;
    process::pause(random, 800..1500).await;
    let fenced_before = fleet.fenced_hot();
    fleet.thaw(zombie)?;
    tokio::time::sleep(WAKE).await;
    // History's lanes may be: a frozen transaction holds the row of its progress, and is committed on waking.
    let fenced_after = fleet.fenced_hot();
    for (index, (before, after)) in fenced_before.iter().zip(&fenced_after).enumerate() {
        if index != zombie && after > before {
            fleet.found(
                Check::Usurped,
                format!("{} lanes of who took over were fenced when a zombie woke up", after - before),
            );
        }
    }
    Ok("SIGSTOP beyond the session, in mid-step")
}
