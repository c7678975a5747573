//! A projector that is frozen until the broker has given its partitions away, and wakes up in the middle of what it
//! did: its writes must be refused, and it must not push out who took over.

use std::time::Duration;

use anyhow::Result;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    faults::{Faults, process},
    fleet::{Fence, Fleet, SESSION_TIMEOUT},
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
    if !fleet.until_assigned(zombie, HELD / 2).await {
        fleet.note("  before it had partitions of every projection");
    }
    fleet.freeze(zombie)?;
    tokio::time::sleep(SESSION_TIMEOUT).await;
    process::pause(random, 800..1500).await;
    let before: Vec<usize> = (0..fleet.len()).map(|index| fleet.fences(index).len()).collect();
    fleet.thaw(zombie)?;
    tokio::time::sleep(WAKE).await;
    let since: Vec<Vec<Fence>> =
        before.iter().enumerate().map(|(index, known)| fleet.fences(index).split_off(*known)).collect();
    for usurped in pushed_out(&since, zombie) {
        fleet.found(
            Check::Usurped,
            format!("{usurped} was taken from its owner by a zombie that had been told"),
        );
    }
    Ok("SIGSTOP beyond the session, in mid-step")
}

/// Lanes of which a zombie pushed out the owner *after* it was fenced there itself: who was fenced goes on only with
/// proof that the partition is its own.
///
/// Before that it may: the write in its hand follows the stored link for as long as its successor has not written, and
/// is taken then. Its successor goes on from there, and nothing is lost or doubled.
fn pushed_out(since: &[Vec<Fence>], zombie: usize) -> Vec<String> {
    let others =
        since.iter().enumerate().filter(|(index, _)| *index != zombie).flat_map(|(_, fences)| fences);
    let told = |fence: &&Fence| since[zombie].iter().any(|own| own.lane == fence.lane && own.at < fence.at);
    others.filter(told).map(|fence| fence.lane.clone()).collect()
}

#[test]
fn only_who_was_told_before_pushes_out() {
    let fence = |at: &str, lane: &str| Fence { at: at.to_owned(), lane: lane.to_owned() };
    let held_write_taken = [vec![fence("10:01", "a")], vec![fence("10:02", "a")]];
    assert!(pushed_out(&held_write_taken, 1).is_empty());
    let goes_on = [vec![fence("10:03", "a"), fence("10:03", "b")], vec![fence("10:02", "a")]];
    assert_eq!(pushed_out(&goes_on, 1), ["a"]);
}
