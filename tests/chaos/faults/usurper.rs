//! Somebody takes a projector's place in its group, and writes on its chains at once: the projector finds out about the
//! chain first, and about the group only with its next heartbeat. In between it must not write.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use redis::AsyncCommands as _;

use crate::{
    faults::{Faults, process, tail},
    fleet::{Fleet, SESSION_TIMEOUT},
    outcome::Check,
};

const PROJECTION: &str = "unit-consensus";
const TOPIC: &str = "telemetry";
const PARTITIONS: i32 = 6;
/// How long joining a group may take.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// How long the chains are looked at; a projector asks after its membership every 1.2 s, a fifth of its session.
const LOOK: Duration = Duration::from_millis(2_500);
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// One projector, and the same name again.
#[derive(Default)]
pub(crate) struct Usurper {
    strikes: u32,
}

impl Faults for Usurper {
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            self.strikes += 1;
            if self.strikes.is_multiple_of(2) {
                return process::strike(fleet, random).await;
            }
            // One alone has all lanes.
            while fleet.len() > 0 {
                fleet.terminate(0).await?;
            }
            fleet.restart().await?;
            let instance = fleet.instance_name(0).await?;
            let member = join(fleet, &instance).await?;
            let link = format!("{:016x}.1000000.0", random.random::<u64>());
            let written = tail::write_on_hot_chains(fleet, &format!("{PROJECTION}@1:*"), &link).await?;
            ensure!(written > 0, "no lane of {PROJECTION} has a chain to write on");
            still_stands(fleet, &link).await?;
            // It does not leave, as a static member never does: the projector has to wait until the group has forgotten it.
            drop(member);
            Ok("another of the same name")
        }
        .boxed_local()
    }

    fn pause_ms(&self) -> std::ops::Range<u64> {
        500..1500
    }
}

/// Takes the place of a static member.
async fn join(fleet: &Fleet, instance: &str) -> Result<BaseConsumer> {
    let settings = fleet.world.kafka();
    let group = fleetlog_engine::group_name(&fleet.world.prefix, PROJECTION, 1);
    let mut config = settings.consumer(&group);
    config
        .set("group.instance.id", format!("{instance}-{PROJECTION}"))
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
        .set("partition.assignment.strategy", "cooperative-sticky");
    let topic = settings.topic(TOPIC);
    let joining = tokio::task::spawn_blocking(move || {
        let member: BaseConsumer = config.create()?;
        member.subscribe(&[&topic])?;
        let begun = Instant::now();
        while member.assignment()?.count() == 0 {
            ensure!(begun.elapsed() < JOIN_LIMIT, "no partitions within {JOIN_LIMIT:?}");
            // Whatever comes, it is the assignment that is waited for.
            let _ = member.poll(ASK_INTERVAL);
        }
        Ok(member)
    });
    joining.await?
}

/// The link has to stay where it is for as long as this member has the place.
async fn still_stands(fleet: &mut Fleet, link: &str) -> Result<()> {
    let prefix = fleet.world.prefix.clone();
    let lanes: Vec<String> = (0..PARTITIONS)
        .map(|partition| format!("{prefix}fleetlog:{prefix}{PROJECTION}@1:{prefix}{TOPIC}:{partition}"))
        .collect();
    let mut redis = tail::connect(fleet).await?;
    let begun = Instant::now();
    while begun.elapsed() < LOOK {
        for lane in &lanes {
            let stored: Option<String> = redis.hget(lane, "link").await.context("reading a link")?;
            if stored.as_deref().is_some_and(|stored| stored != link) {
                let detail = format!("{lane}: {stored:?} was written by who had lost its place");
                fleet.found(Check::Usurped, detail);
                return Ok(());
            }
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
    Ok(())
}
