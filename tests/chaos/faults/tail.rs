//! A store that loses its tail, and an owner's chain that somebody else writes on.
//!
//! Done to the fleet's own keys of the shared Redis, in one atomic script: what a failover to a replica that lags, or
//! a restore from a snapshot, does to a whole server.

use fleetlog_testkit::redis_connection;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fleetlog_kafka::Offsets;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng};
use redis::aio::MultiplexedConnection;

use crate::{
    faults::{Faults, process},
    fleet::Fleet,
    outcome::Check,
};

/// How soon after a broken chain every lane has to have taken what was there, load or no load.
const GO_ON_LIMIT: Duration = Duration::from_secs(45);
/// How long an idle lane may take to look at its link, with room for a busy machine.
const IDLE_LOOK: Duration = Duration::from_secs(3);
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// All keys of a fleet as they were.
type Snapshot = Vec<(String, Vec<u8>)>;

/// Hot state goes back to what it was some time ago, again and again, and once when all is quiet.
#[derive(Default)]
pub(crate) struct Tail {
    snapshot: Option<Snapshot>,
}

impl Faults for Tail {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            if self.snapshot.is_none() || random.random_bool(0.3) {
                self.snapshot = Some(take(fleet).await?);
                process::pause(random, 200..2500).await;
            }
            restore(fleet, self.snapshot.as_ref().context("it was taken")?).await?;
            Ok("hot state loses its tail")
        }
        .boxed_local()
    }

    fn strike_in_quiet<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        _random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<Option<&'static str>>> {
        async move {
            // Faults of processes are mixed in, and may have been all there was time for.
            let Some(snapshot) = &self.snapshot else { return Ok(None) };
            restore(fleet, snapshot).await?;
            tokio::time::sleep(IDLE_LOOK).await;
            Ok(Some("hot state loses its tail in quiet"))
        }
        .boxed_local()
    }

    fn mixes_with_process(&self) -> bool {
        true
    }
}

/// Somebody else writes on the chain of every lane: an owner that nobody knows, whose progress is the same. A lane
/// has to notice, and go on under load without a pause in it.
#[derive(Default)]
pub(crate) struct Chain;

impl Faults for Chain {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            write_on_the_chains(fleet, random.random()).await?;
            go_on(fleet).await?;
            Ok("another's write on the chain")
        }
        .boxed_local()
    }

    /// Hot state goes back to the first write of an owner that was fenced twice since: were a nonce used again, that
    /// write's link would look like the newest.
    fn strike_in_quiet<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<Option<&'static str>>> {
        async move {
            let mut snapshots = Vec::new();
            for _ in 0..2 {
                write_on_the_chains(fleet, random.random()).await?;
                tokio::time::sleep(IDLE_LOOK).await;
                fleet.poisoner.touch_every_lane(random).await?;
                go_on(fleet).await?;
                snapshots.push(take(fleet).await?);
            }
            restore(fleet, &snapshots[0]).await?;
            tokio::time::sleep(IDLE_LOOK).await;
            Ok(Some("hot state goes back to an earlier owner's write"))
        }
        .boxed_local()
    }

    fn mixes_with_process(&self) -> bool {
        true
    }
}

pub(super) async fn connect(fleet: &Fleet) -> Result<MultiplexedConnection> {
    Ok(redis_connection(&fleet.world.redis_url).await?)
}

async fn take(fleet: &Fleet) -> Result<Snapshot> {
    const TAKE: &str = "local out = {} for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                        out[#out + 1] = key out[#out + 1] = redis.call('DUMP', key) end return out";
    let found: Vec<Vec<u8>> = redis::cmd("EVAL")
        .arg(TAKE)
        .arg(0)
        .arg(format!("{}*", fleet.world.prefix))
        .query_async(&mut connect(fleet).await?)
        .await?;
    let pairs = found.chunks(2).map(|pair| Ok((String::from_utf8(pair[0].clone())?, pair[1].clone())));
    pairs.collect()
}

async fn restore(fleet: &Fleet, snapshot: &Snapshot) -> Result<()> {
    const RESTORE: &str = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end \
                           for i = 2, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1]) end return 1";
    fleet.scene().store_may_lose();
    let mut command = redis::cmd("EVAL");
    command.arg(RESTORE).arg(0).arg(format!("{}*", fleet.world.prefix));
    for (key, dump) in snapshot {
        command.arg(key).arg(dump.as_slice());
    }
    let restored: redis::RedisResult<i64> = command.query_async(&mut connect(fleet).await?).await;
    // And after: a read may have come between the word and the deed.
    fleet.scene().store_may_lose();
    restored?;
    Ok(())
}

/// Leaves a link of a new owner in every lane of both stores, as an empty write of that owner would. Its counter is
/// higher than any that a lane of this run has reached.
async fn write_on_the_chains(fleet: &Fleet, nonce: u64) -> Result<()> {
    let link = format!("{nonce:016x}.1000000.0");
    ensure!(write_on_hot_chains(fleet, "*", &link).await? > 0, "no lane has a chain to write on");
    let mut postgres = fleet.world.postgres().await;
    sqlx::query("UPDATE fleetlog_progress SET link = $1").bind(&link).execute(&mut postgres).await?;
    Ok(())
}

/// The same in the lanes of hot state whose names are like this; how many these are.
pub(super) async fn write_on_hot_chains(fleet: &Fleet, lanes: &str, link: &str) -> Result<i64> {
    const WRITE: &str = "local n = 0 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                         if redis.call('TYPE', key).ok == 'hash' and redis.call('HEXISTS', key, 'link') == 1 then \
                         redis.call('HSET', key, 'link', ARGV[2]) n = n + 1 end end return n";
    let prefix = &fleet.world.prefix;
    let written = redis::cmd("EVAL")
        .arg(WRITE)
        .arg(0)
        .arg(format!("{prefix}fleetlog:{prefix}{lanes}"))
        .arg(link)
        .query_async(&mut connect(fleet).await?)
        .await?;
    Ok(written)
}

/// Every lane has to take what is on the log now, while more is coming.
async fn go_on(fleet: &mut Fleet) -> Result<()> {
    let settings = fleet.world.kafka();
    let offsets = Offsets::new(&settings)?;
    let topics = ["robot", "telemetry", "task"].map(|stem| settings.topic(stem));
    let ranges = offsets.ranges(&topics.each_ref().map(String::as_str)).await?;
    let ends: BTreeMap<String, i64> = ranges
        .into_iter()
        .map(|((topic, partition), range)| (format!("{topic}:{partition}"), range.end))
        .collect();
    let begun = Instant::now();
    loop {
        fleet.look_after().await?;
        let shown = fleet.world.json(&["progress", "show"]).await;
        let lanes = shown.as_array().context("a list of lanes")?;
        let behind: Vec<&str> = lanes
            .iter()
            .filter(|lane| {
                let place =
                    lane["lane"].as_str().and_then(|lane| lane.split_once(':')).map(|(_, place)| place);
                let end = place.and_then(|place| ends.get(place)).copied().unwrap_or_default();
                lane["next"].as_i64().unwrap_or_default() < end
            })
            .filter_map(|lane| lane["lane"].as_str())
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > GO_ON_LIMIT {
            fleet.found(
                Check::Stalled,
                format!("lanes that did not go on within {GO_ON_LIMIT:?}: {behind:?}"),
            );
            return Ok(());
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}
