//! Faults of brokers: one alone that dies or freezes; three of which one is always there too few.

use anyhow::Result;
use fleetlog_testkit::{KafkaCluster, KafkaServer, Stack};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng};

use crate::{
    faults::{Faults, Ground, process::pause},
    fleet::Fleet,
};

/// A Kafka of the run's own, of one broker: while it is away nothing can be sent or read.
pub(super) struct Broker {
    server: KafkaServer,
    stack: Stack,
}

impl Broker {
    pub(super) async fn start() -> Result<Self> {
        let server = KafkaServer::start().await?;
        let stack = Stack { brokers: server.brokers(), replication: Some(1), ..Stack::from_env() };
        Ok(Self { server, stack })
    }

    /// One fault of this family.
    pub(super) async fn hit(&mut self, random: &mut StdRng) -> Result<&'static str> {
        if random.random_bool(0.6) {
            self.server.kill();
            pause(random, 0..2000).await;
            self.server.restart().await?;
            return Ok("broker killed");
        }
        self.server.pause()?;
        pause(random, 500..8000).await;
        self.server.resume()?;
        Ok("broker frozen")
    }
}

impl Faults for Broker {
    fn ground(&self) -> Ground {
        Ground::on(self.stack.clone())
    }

    fn strike<'a>(
        &'a mut self,
        _fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        self.hit(random).boxed_local()
    }

    fn pause_ms(&self) -> std::ops::Range<u64> {
        1000..3000
    }

    /// A group that lost its coordinator has to find it first.
    fn restarts_are_timed(&self) -> bool {
        false
    }
}

/// A Kafka of the run's own, of three brokers and controllers: one at a time is away, and nothing may stop for long.
pub(super) struct Cluster {
    cluster: KafkaCluster,
    stack: Stack,
    /// Which died last: the next is another.
    last: Option<usize>,
}

impl Cluster {
    pub(super) async fn start() -> Result<Self> {
        let cluster = KafkaCluster::start().await?;
        let stack = Stack { brokers: cluster.brokers(), replication: Some(3), ..Stack::from_env() };
        Ok(Self { cluster, stack, last: None })
    }

    /// One goes while all is in sync, in either way, and is back before another may.
    async fn lose(&mut self, random: &mut StdRng) -> Result<&'static str> {
        self.cluster.in_sync().await?;
        let controller = self.cluster.controller()?;
        let victim = match self.last {
            None => random.random_range(0..3),
            Some(last) => (last + random.random_range(1..3)) % 3,
        };
        self.last = Some(victim);
        let is_killed = random.random_bool(0.7);
        if is_killed {
            self.cluster.node(victim).kill();
        } else {
            self.cluster.node(victim).stop().await?;
        }
        if victim == controller {
            self.cluster.controller_moves_from(controller).await?;
        } else {
            pause(random, 500..4000).await;
        }
        self.cluster.node(victim).restart().await?;
        Ok(match (victim == controller, is_killed) {
            (true, true) => "controller killed, moved",
            (true, false) => "controller stopped, moved",
            (false, true) => "one of three brokers killed",
            (false, false) => "one of three brokers stopped",
        })
    }
}

impl Faults for Cluster {
    fn ground(&self) -> Ground {
        Ground::on(self.stack.clone())
    }

    fn strike<'a>(
        &'a mut self,
        _fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        self.lose(random).boxed_local()
    }

    /// One, and later another.
    fn strikes_min(&self) -> u32 {
        2
    }

    fn heal<'a>(&'a mut self, _fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async { self.cluster.in_sync().await }.boxed_local()
    }

    fn restarts_are_timed(&self) -> bool {
        false
    }
}
