//! Faults of the log itself, which no projector may pass over in silence: it stops and names the two ways out, and
//! those that read other topics go on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use fleetlog_kafka::{Admin, Offsets};
use fleetlog_testkit::delete_before;
use fleetlog_tests::until;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::rngs::StdRng;

use crate::{
    faults::{Faults, process},
    fleet::Fleet,
    outcome::Check,
};

/// How soon a lost log has to be noticed.
const NOTICE_LIMIT: Duration = Duration::from_secs(60);
/// What reads the topic `robot`.
const READERS: [&str; 2] = ["unit-status", "event-history"];

/// Retention deletes records of `robot` while no projector runs.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    has_struck: bool,
}

impl Faults for Retention {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            if self.has_struck {
                process::pause(random, 300..1000).await;
                return process::strike(fleet, random).await;
            }
            self.has_struck = true;
            // What was taken first, so that there is progress to overtake; and what came after is what gets lost.
            until_begun(fleet).await;
            fleet.stop_all().await?;
            let ends = grown_past(fleet, &progress(fleet).await).await?;
            let settings = fleet.world.kafka();
            delete_before(&settings, &settings.topic("robot"), &ends).await?;
            fleet.fill_up()?;
            Ok("retention overtakes")
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        says_the_ways_out(fleet, "retention overtook it").boxed_local()
    }

    fn restarts_are_timed(&self) -> bool {
        false
    }

    fn stopped(&self) -> &'static [&'static str] {
        &READERS
    }
}

/// The topic `robot` is deleted and made again under the projectors' hands.
#[derive(Debug, Default)]
pub(crate) struct Recreated {
    has_struck: bool,
}

impl Faults for Recreated {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            if self.has_struck {
                process::pause(random, 300..1000).await;
                return process::strike(fleet, random).await;
            }
            self.has_struck = true;
            until_begun(fleet).await;
            let settings = fleet.world.kafka();
            Admin::new(&settings)?.delete_topics(&[&settings.topic("robot")]).await?;
            fleet.world.ok(&["topics", "apply"]).await;
            Ok("topic recreated")
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        says_the_ways_out(fleet, "deleted and made again").boxed_local()
    }

    fn restarts_are_timed(&self) -> bool {
        false
    }

    fn stopped(&self) -> &'static [&'static str] {
        &READERS
    }
}

/// How far `robot` was taken, by partition: where the furthest of its readers is, of those partitions of which each of them
/// has written something. A reader that has not could not know that something was lost.
async fn progress(fleet: &Fleet) -> BTreeMap<i32, i64> {
    let mut furthest: Option<BTreeMap<i32, i64>> = None;
    for reader in READERS {
        let of_reader = progress_of(fleet, reader).await;
        furthest = Some(match furthest {
            None => of_reader,
            Some(others) => others
                .into_iter()
                .filter_map(|(partition, next)| Some((partition, next.max(*of_reader.get(&partition)?))))
                .collect(),
        });
    }
    furthest.unwrap_or_default()
}

/// Where a projection's lanes of `robot` are; those that have not written yet are absent.
async fn progress_of(fleet: &Fleet, projection: &str) -> BTreeMap<i32, i64> {
    let shown = fleet.world.json(&["progress", "show", projection]).await;
    let topic = fleet.world.kafka().topic("robot");
    let lanes = shown.as_array().into_iter().flatten();
    let known = lanes.filter_map(|lane| {
        let (of, partition) = lane["lane"].as_str()?.rsplit_once(':')?;
        let next = lane["next"].as_i64().filter(|next| *next > 0)?;
        of.ends_with(&topic).then_some((partition.parse().ok()?, next))
    });
    known.collect()
}

async fn until_begun(fleet: &Fleet) {
    until("progress of every reader", async || !progress(fleet).await.is_empty()).await;
}

/// Waits until a lane's partition has grown past its progress; the ends of those that have.
async fn grown_past(fleet: &Fleet, progress: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>> {
    let settings = fleet.world.kafka();
    let (offsets, topic) = (Offsets::new(&settings)?, settings.topic("robot"));
    let mut grown = BTreeMap::new();
    until("records that nobody took", async || {
        let ranges = offsets.ranges(&[&topic]).await.unwrap_or_default();
        let ends = ranges.into_iter().map(|((_, partition), range)| (partition, range.end));
        grown =
            ends.filter(|(partition, end)| progress.get(partition).is_some_and(|next| end > next)).collect();
        !grown.is_empty()
    })
    .await;
    Ok(grown)
}

/// Both readers of the topic have to say what happened, and the two ways out.
async fn says_the_ways_out(fleet: &mut Fleet, what: &str) -> Result<()> {
    let begun = Instant::now();
    for reader in READERS {
        let is_said = |said: &str| {
            said.lines().any(|line| [reader, what, "rebuild", "adopt"].iter().all(|word| line.contains(word)))
        };
        while !is_said(&fleet.said()) && begun.elapsed() < NOTICE_LIMIT {
            fleet.look_after().await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if !is_said(&fleet.said()) {
            fleet.found(Check::Stopped, format!("{reader} did not stop with `{what}` and both ways out"));
        }
    }
    Ok(())
}
