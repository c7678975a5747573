//! Faults of the ways between projectors and their servers: cut, refused, half-open, slow, and a store that hangs.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use fleetlog_testkit::{Direction, FaultProxy, KafkaServer, Stack, Way};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tempfile::TempDir;

use crate::{
    faults::{Faults, Ground},
    fleet::{Fleet, SESSION_TIMEOUT},
    outcome::Check,
};

/// How long a store may take to answer before its outcome is unknown. Shorter than by default, as a run is short.
const REDIS_TIMEOUT_MS: u32 = 1_500;
const POSTGRES_TIMEOUT_MS: u32 = 2_000;
/// How long librdkafka waits for an answer, by default 60 s: a half-open way to a broker shows only by that.
const KAFKA_TIMEOUT_MS: u32 = 6_000;
/// How long the broker waits for a member that does not poll: a little longer than its session, which it has to be.
const POLL_INTERVAL: Duration = Duration::from_millis(SESSION_TIMEOUT.as_millis() as u64 + 1_000);
/// How long a store hangs: more than twice that, as minutes are to the default of 5.
const HANG: Duration = Duration::from_secs(16);

/// The ways from projectors to all three servers, and what runs behind them.
///
/// Redis and PostgreSQL are those of the stack. Kafka is one of our own, since a broker tells its clients where it is.
pub(super) struct Network {
    ways: Ways,
    to_kafka: FaultProxy,
    /// Where the proxy leads: gone when this is.
    _kafka: KafkaServer,
}

/// The ways to the stores, and a place for settings that have no variable.
struct Ways {
    stack: Stack,
    to_redis: FaultProxy,
    to_postgres: FaultProxy,
    projectors: Vec<(String, String)>,
    _folder: TempDir,
}

impl Ways {
    /// Lets everything pass, to the stores of `stack`.
    async fn open(mut stack: Stack, properties: &[(&str, String)]) -> Result<Self> {
        let to_redis = FaultProxy::start_before(&stack.redis_url).await?;
        let to_postgres = FaultProxy::start_before(&stack.postgres_url).await?;
        // The run's own database is made by this URL, so the run itself goes this way too; it asks nothing while a fault
        // lasts.
        stack.postgres_url = to_postgres.url_instead(&stack.postgres_url)?;
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("fleetlog.toml");
        let lines = properties.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"\n"));
        fs::write(&config, format!("[kafka.properties]\n{}", lines.collect::<String>()))?;
        let projectors = [
            ("FLEETLOG_CONFIG", config.display().to_string()),
            ("FLEETLOG_REDIS__URL", to_redis.url_instead(&stack.redis_url)?),
            ("FLEETLOG_REDIS__TIMEOUT_MS", REDIS_TIMEOUT_MS.to_string()),
            ("FLEETLOG_POSTGRES__TIMEOUT_MS", POSTGRES_TIMEOUT_MS.to_string()),
        ];
        let projectors = projectors.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Self { stack, to_redis, to_postgres, projectors, _folder: folder })
    }

    fn ground(&self) -> Ground {
        Ground { projectors: self.projectors.clone(), ..Ground::on(self.stack.clone()) }
    }

    async fn pass(&self) {
        self.to_redis.set(Way::Pass).await;
        self.to_postgres.set(Way::Pass).await;
    }
}

impl Network {
    pub(super) async fn start() -> Result<Self> {
        let (kafka, to_kafka) = KafkaServer::start_behind_proxy(&[]).await?;
        let stack = Stack { brokers: kafka.brokers(), replication: Some(1), ..Stack::from_env() };
        let mut ways = Ways::open(stack, &[("socket.timeout.ms", KAFKA_TIMEOUT_MS.to_string())]).await?;
        ways.projectors.push(("FLEETLOG_KAFKA__BROKERS".to_owned(), to_kafka.address()));
        Ok(Self { ways, to_kafka, _kafka: kafka })
    }

    /// Which way, and its name for the table.
    fn choose(&self, random: &mut StdRng) -> (&FaultProxy, &'static str) {
        match random.random_range(0..3) {
            0 => (&self.ways.to_redis, "  on the way to redis"),
            1 => (&self.ways.to_postgres, "  on the way to postgresql"),
            _ => (&self.to_kafka, "  on the way to kafka"),
        }
    }
}

impl Faults for Network {
    fn ground(&self) -> Ground {
        self.ways.ground()
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            let (proxy, place) = self.choose(random);
            fleet.note(place);
            spoil(proxy, random).await
        }
        .boxed_local()
    }

    fn pause_ms(&self) -> std::ops::Range<u64> {
        0..800
    }

    fn heal<'a>(&'a mut self, _fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async {
            self.ways.pass().await;
            self.to_kafka.set(Way::Pass).await;
            Ok(())
        }
        .boxed_local()
    }

    fn mixes_with_process(&self) -> bool {
        true
    }

    /// A way that was half-open may still be: what waits on it waits its time.
    fn restarts_are_timed(&self) -> bool {
        false
    }
}

/// Does something bad to a way for some seconds, and lets it pass again. What a half-open way has swallowed stays lost:
/// its connections stay dumb until whoever uses them gives them up.
async fn spoil(proxy: &FaultProxy, random: &mut StdRng) -> Result<&'static str> {
    let directions = [Direction::ToServer, Direction::ToClient, Direction::Both];
    let direction = *directions.choose(random).context("there are directions")?;
    let length = Duration::from_millis(random.random_range(300..3000));
    let (way, name) = match random.random_range(0..7) {
        0 => {
            proxy.cut().await;
            return Ok("connections cut");
        }
        1 => (Way::Refuse, "connections cut and refused"),
        2 => (Way::Lose(direction), "connections half-open"),
        3 => (Way::Hold(direction), "connections stalled, then late"),
        4 => (Way::Delay(Duration::from_millis(random.random_range(20..400))), "connections delayed"),
        5 => (Way::Trickle { bytes_per_second: random.random_range(500..50_000) }, "connections trickling"),
        _ => {
            let bytes = random.random_range(1..20_000);
            proxy.set(Way::CutAfter { direction, bytes }).await;
            let struck = tokio::time::timeout(length, proxy.has_struck()).await.is_ok();
            proxy.set(Way::Pass).await;
            return Ok(if struck {
                "connection cut in mid-message"
            } else {
                "connection to be cut too quiet"
            });
        }
    };
    proxy.set(way).await;
    if way == Way::Refuse {
        proxy.cut().await;
    }
    tokio::time::sleep(length).await;
    proxy.set(Way::Pass).await;
    Ok(name)
}

/// A store that takes connections and answers nothing, for more than twice the time after which the group throws a
/// member out that does not poll. Nobody may be thrown out, and what the store was told meanwhile reaches it late.
pub(super) struct Hang {
    ways: Ways,
}

impl Hang {
    pub(super) async fn start() -> Result<Self> {
        // The session's time too: settings hold for all clients, and one is checked against the other.
        let properties = [
            ("max.poll.interval.ms", POLL_INTERVAL.as_millis().to_string()),
            ("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string()),
        ];
        Ok(Self { ways: Ways::open(Stack::from_env(), &properties).await? })
    }
}

impl Faults for Hang {
    fn ground(&self) -> Ground {
        self.ways.ground()
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move {
            let Ways { to_redis, to_postgres, .. } = &self.ways;
            let (hanging, name): (&[&FaultProxy], _) = match random.random_range(0..3) {
                0 => (&[to_redis], "redis hangs"),
                1 => (&[to_postgres], "postgresql hangs"),
                _ => (&[to_redis, to_postgres], "both stores hang"),
            };
            for proxy in hanging {
                proxy.set(Way::Hold(Direction::Both)).await;
            }
            tokio::time::sleep(HANG).await;
            self.ways.pass().await;
            if let Some(line) = fleet.said().lines().find(|line| is_thrown_out(line)) {
                fleet.found(Check::Stopped, format!("a member was thrown out while {name}: {line}"));
            }
            Ok(name)
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, _fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async {
            self.ways.pass().await;
            Ok(())
        }
        .boxed_local()
    }
}

/// What librdkafka says of a member that did not poll in time, and what the intake says of partitions that are somebody
/// else's already.
fn is_thrown_out(line: &str) -> bool {
    line.contains("maximum poll interval") || line.contains("lost=true") || line.contains("not ours any more")
}
