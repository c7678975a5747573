//! From the moment an event is due to be produced until it is visible, in Redis and in SQL, under a load of so many events a
//! second.
//!
//! Events have their moments from the start on, whatever became of those before (no coordinated omission): one that is sent
//! late because the sender was held up is late by that, too. Some of them are of a unit that nobody has seen before; these
//! are looked for in the stores again and again.

use std::{
    collections::HashMap,
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleetlog_producer::EventProducer;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;

use crate::{
    load::Data,
    report::{Goal, Report, Sample},
    stack::{Stack, said},
};

const RATES: [u64; 3] = [1_000, 10_000, 50_000];
const PROBES_PER_S: u64 = 200;
/// Before anything is measured: members join, connections open.
pub(crate) const WARM_UP: Duration = Duration::from_secs(5);
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that are looked for: name of the unit, and when it was due.
type Awaited = Arc<Mutex<HashMap<String, Instant>>>;

/// What was measured, in milliseconds.
type Found = Arc<Mutex<Vec<f64>>>;

pub(crate) async fn measure(stack: &Stack, seconds: u64, report: &mut Report) -> Result<()> {
    for rate in RATES {
        let name = format!("latency at {rate} events/s");
        if !report.wants(&name) {
            continue;
        }
        let data = Data::new(stack, &format!("rate{rate}"), events_at(rate, seconds), 10_000);
        let own = format!("{}_rate{rate}", stack.name);
        data.topics(stack)?;
        stack.database(&own)?;
        let mut running = Projector::start(stack, &data.prefix, &own)?;
        let found = at_rate(stack, &data, &own, rate, &mut running).await.with_context(|| name.clone())?;
        drop(running);
        stack.drop_keys(&own)?;
        stack.drop_database(&own)?;
        tell(report, &name, found, (rate == 10_000).then_some(Goal::Max(20.0)));
    }
    Ok(())
}

/// Rows of what was found in Redis and in SQL; the goal is for Redis' 99th percentile.
pub(crate) fn tell(report: &mut Report, name: &str, [hot, sql]: [Vec<f64>; 2], goal: Option<Goal>) {
    for (store, mut found) in [("Redis", hot), ("SQL", sql)] {
        found.sort_by(f64::total_cmp);
        for (percentile, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            let at = ((found.len() - 1) as f64 * share).round() as usize;
            let sample = Sample { value: found[at], ..Sample::default() };
            let goal = goal.filter(|_| store == "Redis" && percentile == "p99");
            report.row(&format!("{name}, visible in {store}, {percentile}"), "ms", &[sample], None, goal);
        }
    }
}

/// How many events a measurement takes that lasts so long.
pub(crate) fn events_at(rate: u64, seconds: u64) -> u64 {
    rate * (seconds + WARM_UP.as_secs())
}

/// Both stores' latencies at one rate: those of `data`, which is sent now; `running` takes it into the database and under the
/// keys of `own`.
pub(crate) async fn at_rate(
    stack: &Stack,
    data: &Data,
    own: &str,
    rate: u64,
    running: &mut Projector,
) -> Result<[Vec<f64>; 2]> {
    let (hot, sql) = (Watch::default(), Watch::default());
    let of_hot = hot.redis(stack, own).await?;
    let of_sql = sql.postgres(&stack.database_url(own)).await?;
    send(stack, data, rate, &[&hot, &sql]).await?;
    let deadline = Instant::now() + PATIENCE;
    while (hot.waits() || sql.waits()) && Instant::now() < deadline && running.is_running()? {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::ensure!(!hot.waits() && !sql.waits(), "some events did not become visible within {PATIENCE:?}");
    of_hot.abort();
    of_sql.abort();
    Ok([hot.found(), sql.found()])
}

/// The projector; it is told to end with the measurement.
pub(crate) struct Projector(pub(crate) Child);

impl Projector {
    /// Runs a hot projection and a history.
    pub(crate) fn start(stack: &Stack, topics: &str, stores: &str) -> Result<Self> {
        let mut command = stack.fleetlog(topics, stores);
        command
            .args(["run", "--projections", "unit-consensus,telemetry-history"])
            .env("FLEETLOG_RUN__HTTP_ADDRESS", "")
            .stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        Ok(self.0.wait().map(drop)?)
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        // Once it was waited for, its id may be somebody else's.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = said(std::process::Command::new("kill").arg(self.0.id().to_string()));
            let _ = self.0.wait();
        }
    }
}

/// Sends every event when it is due.
async fn send(stack: &Stack, data: &Data, rate: u64, watches: &[&Watch]) -> Result<()> {
    let producer = EventProducer::connect(&stack.kafka(&data.prefix))?;
    let begun = Instant::now();
    for n in 0..data.events {
        let due = begun + Duration::from_secs_f64(n as f64 / rate as f64);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let mut event = data.event(n);
        let is_probe = n.is_multiple_of(rate / PROBES_PER_S) && due - begun >= WARM_UP;
        if is_probe {
            let unit = format!("probe{n}");
            watches.iter().for_each(|watch| watch.look_for(&unit, due));
            event.meta.unit_uid = Some(unit);
        }
        // Outcomes are in the report.
        drop(producer.send(event).await?);
    }
    let report = producer.close(PATIENCE).await;
    anyhow::ensure!(
        report.delivered == data.events,
        "{} of {} were acknowledged",
        report.delivered,
        data.events
    );
    Ok(())
}

/// Looks for units in one store.
#[derive(Default)]
pub(crate) struct Watch {
    awaited: Awaited,
    found: Found,
}

impl Watch {
    pub(crate) fn look_for(&self, unit: &str, due: Instant) {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned(), due);
    }

    pub(crate) fn waits(&self) -> bool {
        !self.awaited.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(crate) fn found(&self) -> Vec<f64> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In hot state: whether the unit's hash is there.
    pub(crate) async fn redis(&self, stack: &Stack, own: &str) -> Result<JoinHandle<()>> {
        let client = redis::Client::open(stack.redis_url())?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let (awaited, found, own) = (Arc::clone(&self.awaited), Arc::clone(&self.found), own.to_owned());
        Ok(tokio::spawn(async move {
            loop {
                let units = names(&awaited);
                let mut pipeline = redis::pipe();
                for unit in &units {
                    pipeline.exists(format!("{own}:UnitConsensus@s504.u{unit}"));
                }
                if !units.is_empty() {
                    let there: Vec<bool> = pipeline.query_async(&mut redis).await.expect("redis answers");
                    let there =
                        units.into_iter().zip(there).filter_map(|(unit, there)| there.then_some(unit));
                    seen(&awaited, &found, there);
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }))
    }

    /// In SQL: whether the unit has a row.
    pub(crate) async fn postgres(&self, url: &str) -> Result<JoinHandle<()>> {
        let mut postgres = PgConnection::connect(url).await?;
        let (awaited, found) = (Arc::clone(&self.awaited), Arc::clone(&self.found));
        Ok(tokio::spawn(async move {
            loop {
                let units = names(&awaited);
                if !units.is_empty() {
                    let query = sqlx::query_scalar("SELECT unit_uid FROM telemetry WHERE unit_uid = ANY($1)");
                    let there: Vec<String> =
                        query.bind(units).fetch_all(&mut postgres).await.expect("postgresql answers");
                    seen(&awaited, &found, there);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }))
    }
}

fn names(awaited: &Awaited) -> Vec<String> {
    awaited.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
}

fn seen(awaited: &Awaited, found: &Found, units: impl IntoIterator<Item = String>) {
    let now = Instant::now();
    for unit in units {
        let due = awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&unit);
        let took = due.map(|due| (now - due).as_secs_f64() * 1000.0);
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(took);
    }
}
