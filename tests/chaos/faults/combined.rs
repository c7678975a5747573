//! Faults that come together: Redis, PostgreSQL, the broker and projectors, two or three of them at once.

use anyhow::Result;
use fleetlog_testkit::Stack;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    faults::{
        Faults, Ground,
        broker::Broker,
        postgres::Postgres,
        process::{self, pause},
        redis::Redis,
    },
    fleet::Fleet,
};

/// All servers are the run's own.
pub(super) struct Combined {
    redis: Redis,
    postgres: Postgres,
    broker: Broker,
}

/// What is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Redis,
    Postgres,
    Broker,
    Projectors,
}

impl Combined {
    pub(super) async fn start() -> Result<Self> {
        let (redis, postgres, broker) = tokio::try_join!(Redis::start(), Postgres::start(), Broker::start())?;
        Ok(Self { redis, postgres, broker })
    }

    async fn hit(&mut self, fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
        let mut victims = [Victim::Redis, Victim::Postgres, Victim::Broker, Victim::Projectors];
        victims.shuffle(random);
        let struck = &victims[..random.random_range(2..=3)];
        let scene = fleet.scene();
        // Each with numbers of its own: which of them comes first must not decide what the others do.
        let mut draws = || StdRng::seed_from_u64(random.random());
        let [mut of_redis, mut of_postgres, mut of_broker, mut of_projectors] =
            [draws(), draws(), draws(), draws()];
        let is_struck = |victim| struck.contains(&victim);
        let Self { redis, postgres, broker } = self;
        let redis = strike(is_struck(Victim::Redis), &mut of_redis, 0..500, async |random| {
            redis.hit(&scene, random).await
        });
        let postgres = strike(is_struck(Victim::Postgres), &mut of_postgres, 0..500, async |random| {
            postgres.hit(&scene, random).await
        });
        let broker = strike(is_struck(Victim::Broker), &mut of_broker, 0..500, async |random| {
            broker.hit(random).await
        });
        // While the servers are away, or just about to come back.
        let projectors =
            strike(is_struck(Victim::Projectors), &mut of_projectors, 200..1500, async |random| {
                process::strike(fleet, random).await
            });
        let (redis, postgres, broker, projectors) = tokio::try_join!(redis, postgres, broker, projectors)?;
        for name in [redis, postgres, broker, projectors].into_iter().flatten() {
            fleet.note(&format!("  together: {name}"));
        }
        Ok(if struck.len() == 2 { "two at once" } else { "three at once" })
    }
}

/// Strikes after a while, if it is to.
async fn strike(
    is_struck: bool,
    random: &mut StdRng,
    after_ms: std::ops::Range<u64>,
    hit: impl AsyncFnOnce(&mut StdRng) -> Result<&'static str>,
) -> Result<Option<&'static str>> {
    if !is_struck {
        return Ok(None);
    }
    pause(random, after_ms).await;
    hit(random).await.map(Some)
}

impl Faults for Combined {
    fn ground(&self) -> Ground {
        let (redis, postgres, broker) = (self.redis.ground(), self.postgres.ground(), self.broker.ground());
        let stack = Stack {
            redis_url: redis.stack.redis_url,
            postgres_url: postgres.stack.postgres_url,
            ..broker.stack
        };
        let projectors = [redis.projectors, postgres.projectors, broker.projectors].concat();
        Ground { projectors, ..Ground::on(stack) }
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        self.hit(fleet, random).boxed_local()
    }

    fn strikes_min(&self) -> u32 {
        2
    }

    fn restarts_are_timed(&self) -> bool {
        false
    }
}
