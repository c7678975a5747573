//! The platform's figures on `/metrics`: totals that the stores keep, asked for at each scrape.

mod whole;

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fleetlog_projection::FoldProjector;
use fleetlog_projections::{TaskLedger, UnitStatus, unit_status};
use fleetlog_sink_redis::{RedisSink, UnitFigures, UnitList};
use fleetlog_sink_timescale::{ConnectionSettings, Database, TaskFigures};
use prometheus::proto::MetricFamily;
use serde_json::Value;

use self::whole::Whole;
use crate::{config::Config, wiring};

/// How long a scrape waits for a store; Prometheus gives up after 10 s by default. What did not come is left out.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where figures come from: the stores of the projections that keep them, as far as this process runs these.
pub(crate) struct Figures {
    tasks: Option<Database>,
    units: Option<Units>,
    instance: String,
    hold: Duration,
    tasks_told: Complaint,
    units_told: Complaint,
}

impl Figures {
    /// For the projections of that name. Connects when it is asked.
    pub(crate) fn new(config: &Config, instance: &str, runs: impl Fn(&str) -> bool) -> anyhow::Result<Self> {
        let tasks = runs(TaskLedger::ID).then(|| database(config)).transpose()?;
        let units = runs(UnitStatus::ID).then(|| Units::new(config)).transpose()?;
        Ok(Self {
            tasks,
            units,
            instance: instance.to_owned(),
            hold: Duration::from_millis(config.run.figures_hold_ms),
            tasks_told: Complaint::default(),
            units_told: Complaint::default(),
        })
    }

    /// What this process is to show now. Figures of a store that does not answer are left out.
    pub(crate) async fn families(&self) -> Vec<MetricFamily> {
        let (mut tasks, units) = tokio::join!(self.task_families(), self.unit_families());
        tasks.extend(units);
        tasks
    }

    async fn task_families(&self) -> Vec<MetricFamily> {
        let Some(database) = &self.tasks else { return Vec::new() };
        let asked = database.task_figures(&self.instance, self.hold);
        let figures: Option<TaskFigures> = self.tasks_told.heed("tasks", asked).await;
        figures.map(|figures| figures.families()).unwrap_or_default()
    }

    async fn unit_families(&self) -> Vec<MetricFamily> {
        let Some(units) = &self.units else { return Vec::new() };
        let asked = units.figures(&self.instance, self.hold);
        let figures: Option<UnitFigures> = self.units_told.heed("units", asked).await;
        figures.map(|figures| figures.families()).unwrap_or_default()
    }
}

/// Where figures of units come from.
struct Units {
    redis: RedisSink,
    lists: Vec<UnitList>,
    whole: Whole,
}

impl Units {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let list = |(unit_type, list): (_, &str)| UnitList {
            unit_type: match serde_json::to_value(unit_type) {
                Ok(Value::String(symbol)) => symbol,
                other => panic!("no symbol of a unit type: {other:?}"),
            },
            list: list.to_owned(),
        };
        Ok(Self {
            redis: wiring::redis_sink(config)?,
            lists: unit_status::unit_lists().into_iter().map(list).collect(),
            whole: Whole::new(config, UnitStatus::ID)?,
        })
    }

    /// None if another process tells them, or hot state holds a part only.
    async fn figures(&self, instance: &str, hold: Duration) -> anyhow::Result<Option<UnitFigures>> {
        if !self.whole.is_whole().await? {
            return Ok(None);
        }
        let figures = self.redis.unit_figures(&self.lists, instance, hold).await?;
        // Once more: it may have been lost in between.
        Ok(if self.whole.is_whole().await? { figures } else { None })
    }
}

/// A connection of its own: what lanes do must not keep figures waiting, nor the other way round.
fn database(config: &Config) -> anyhow::Result<Database> {
    Ok(Database::new(&ConnectionSettings {
        url: config.postgres.url.clone(),
        connections_max: 1,
        timeout: PATIENCE,
    })?)
}

/// Whether it was said that figures are missing: said once, not at every scrape.
#[derive(Debug, Default)]
struct Complaint(AtomicBool);

impl Complaint {
    /// The store's answer; none where it has none, or not in time.
    async fn heed<T>(
        &self,
        figures: &'static str,
        asked: impl Future<Output = Result<Option<T>, impl Display>>,
    ) -> Option<T> {
        let why = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => {
                self.0.store(false, Ordering::Relaxed);
                return answer;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} ms", PATIENCE.as_millis()),
        };
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(figures, "left out of /metrics until it works again: {why}");
        }
        None
    }
}
