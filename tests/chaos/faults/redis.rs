//! Faults of Redis: killed, emptied, thrown back to a snapshot, failed over to a replica without the tail, frozen, full.

use anyhow::{Context as _, Result};
use fleetlog_testkit::{Direction, FaultProxy, RedisServer, RedisSnapshot, Stack, Way};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng};

use crate::{
    faults::{Faults, Ground, Scene, process::pause},
    fleet::Fleet,
};

/// How long Redis may take to answer. Shorter than by default, as a run is short.
const TIMEOUT_MS: u32 = 1_500;

/// A Redis of the run's own, behind an address that leads to whichever server is the primary.
pub(super) struct Redis {
    stack: Stack,
    address: FaultProxy,
    primary: RedisServer,
    /// What it held some time ago.
    snapshot: Option<RedisSnapshot>,
    /// The primary that a failover left behind. It runs on, as one that a partition has cut off would.
    left_behind: Option<RedisServer>,
}

impl Redis {
    pub(super) async fn start() -> Result<Self> {
        let primary = RedisServer::start().await?;
        let address = FaultProxy::start_before(&primary.url()).await?;
        let stack = Stack { redis_url: address.url_instead(&primary.url())?, ..Stack::from_env() };
        Ok(Self { stack, address, primary, snapshot: None, left_behind: None })
    }

    /// Dies and comes back with everything, as its file has it.
    async fn crash(&mut self, random: &mut StdRng) -> Result<&'static str> {
        self.primary.kill();
        pause(random, 0..2500).await;
        self.primary.restart().await?;
        Ok("redis killed")
    }

    /// Dies and comes back with nothing, as one without persistence.
    async fn forget(&mut self, scene: &Scene) -> Result<&'static str> {
        scene.store_may_lose();
        self.primary.forget().await?;
        Ok("redis killed without persistence")
    }

    async fn throw_back(&mut self, scene: &Scene, random: &mut StdRng) -> Result<&'static str> {
        if self.snapshot.is_none() || random.random_bool(0.5) {
            self.snapshot = Some(self.primary.snapshot()?);
            pause(random, 300..3000).await;
        }
        scene.store_may_lose();
        self.primary.restore(self.snapshot.as_ref().context("it was taken")?).await?;
        Ok("redis restored from an old snapshot")
    }

    /// A replica that was cut off for a while becomes the primary. The old one lives on, and what clients had sent to it
    /// is lost.
    async fn fail_over(&mut self, scene: &Scene, random: &mut StdRng) -> Result<&'static str> {
        let way = FaultProxy::start_before(&self.primary.url()).await?;
        let replica = RedisServer::start_replica_of("127.0.0.1", way.port()).await?;
        way.set(Way::Lose(Direction::Both)).await;
        pause(random, 200..2500).await;
        scene.store_may_lose();
        replica.promote().await?;
        self.address.lead_to(format!("127.0.0.1:{}", replica.port()));
        self.address.cut().await;
        // Until now the reader saw the old one: what comes is older again.
        scene.store_may_lose();
        self.left_behind = Some(std::mem::replace(&mut self.primary, replica));
        // What an earlier primary held is no state that this one could come back to by itself.
        self.snapshot = None;
        Ok("redis failed over to a replica that lacks the tail")
    }

    async fn freeze(&mut self, random: &mut StdRng) -> Result<&'static str> {
        self.primary.pause()?;
        pause(random, 200..4000).await;
        self.primary.resume()?;
        Ok("redis frozen")
    }

    /// No memory left for writes: reads go on, and scripts are refused half-way or at their start.
    async fn fill(&mut self, random: &mut StdRng) -> Result<&'static str> {
        self.configure("maxmemory", "1mb").await?;
        pause(random, 300..2000).await;
        self.configure("maxmemory", "0").await?;
        Ok("redis out of memory")
    }

    async fn configure(&self, name: &str, value: &str) -> Result<()> {
        let mut set = ::redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        let _: String = set.query_async(&mut self.primary.connect().await?).await?;
        Ok(())
    }

    /// One fault of this family.
    pub(super) async fn hit(&mut self, scene: &Scene, random: &mut StdRng) -> Result<&'static str> {
        match random.random_range(0..12) {
            0..=1 => self.crash(random).await,
            2..=3 => self.forget(scene).await,
            4..=5 => self.throw_back(scene, random).await,
            6..=8 => self.fail_over(scene, random).await,
            9 => self.freeze(random).await,
            10 => self.fill(random).await,
            _ => self.flush_scripts().await,
        }
    }

    async fn flush_scripts(&self) -> Result<&'static str> {
        let mut flush = ::redis::cmd("SCRIPT");
        flush.arg("FLUSH");
        let _: String = flush.query_async(&mut self.primary.connect().await?).await?;
        Ok("redis scripts flushed")
    }
}

impl Faults for Redis {
    fn ground(&self) -> Ground {
        let timeout = ("FLEETLOG_REDIS__TIMEOUT_MS".to_owned(), TIMEOUT_MS.to_string());
        Ground { projectors: vec![timeout], ..Ground::on(self.stack.clone()) }
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move { self.hit(&fleet.scene(), random).await }.boxed_local()
    }

    fn strike_in_quiet<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<Option<&'static str>>> {
        // Nothing is sent any more: only the lanes' looks at their links can find out.
        async move {
            self.throw_back(&fleet.scene(), random).await?;
            self.forget(&fleet.scene()).await?;
            Ok(Some("redis killed without persistence, in quiet"))
        }
        .boxed_local()
    }

    fn mixes_with_process(&self) -> bool {
        true
    }
}
