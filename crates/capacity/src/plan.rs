//! The plan: how many deployments, and what limits them.

use fleetlog_event::catalogue::Catalogue;
use serde::Serialize;

use crate::{Deployment, Figures, Line, Load, LoadError, Warning, report, warnings};

/// More deployments than that are no plan.
const DEPLOYMENTS_MAX: f64 = 1e6;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Values of the load that cannot be: every one of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Load(Vec<LoadError>),
    /// However few units a deployment serves, something of it is too small.
    #[error(
        "no deployment is small enough: {what} takes {used:.2} of {allowed:.2} {unit} in each of {deployments:.0}"
    )]
    NoRoom {
        /// Which limit.
        what: &'static str,
        /// What each of them takes.
        used: f64,
        /// What it may take.
        allowed: f64,
        /// Of what.
        unit: &'static str,
        /// How many deployments were looked at last.
        deployments: f64,
    },
}

/// What one deployment takes of something that it has only once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// Of what.
    pub what: &'static str,
    /// What it takes.
    pub used: f64,
    /// What it may take, headroom taken off.
    pub allowed: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// How many deployments this limit alone would need.
    pub deployments: f64,
}

impl Limit {
    fn share(&self) -> f64 {
        self.used / self.allowed
    }

    fn of(deployment: &Deployment, count: f64, load: &Load, figures: &Figures) -> Vec<Self> {
        let (redis, sql, usable) = (&deployment.redis, &deployment.sql, load.usable());
        let limits = [
            ("CPU of a Redis process", redis.cores, usable, "cores"),
            ("memory of a Redis process", redis.memory_bytes, figures.redis_memory_max_bytes.value, "bytes"),
            ("rows of a database", sql.rows_per_s, figures.sql_rows_max_per_s.value * usable, "rows/s"),
            ("disk of a database", sql.disk_bytes, figures.sql_disk_max_bytes.value, "bytes"),
            ("the job that makes telemetry_1m", sql.rollup_cores, usable, "cores"),
            ("the job that compresses telemetry", sql.compress_cores, usable, "cores"),
        ];
        limits
            .into_iter()
            .map(|(what, used, allowed, unit)| {
                let deployments = (count * used / allowed).ceil().max(1.0);
                Self { what, used, allowed, unit, deployments }
            })
            .collect()
    }
}

/// Brokers of the one cluster that carries all deployments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Brokers {
    /// How many.
    pub count: f64,
    /// How many their disks need.
    pub by_disk: f64,
    /// How many their cores need.
    pub by_cores: f64,
    /// How many their network needs.
    pub by_network: f64,
}

impl Brokers {
    fn of(deployment: &Deployment, deployments: f64, load: &Load, figures: &Figures) -> Self {
        let kafka = &deployment.kafka;
        let needed = |of_one: f64, of_broker: f64| (of_one * deployments / of_broker).ceil();
        let by_disk = needed(kafka.disk_bytes, figures.broker_disk_max_bytes.value * load.usable());
        let by_cores = needed(kafka.cores, figures.broker_cores.value * load.usable());
        let by_network =
            needed(kafka.network_bytes_per_s, figures.broker_network_bytes_per_s.value * load.usable());
        let count = by_disk.max(by_cores).max(by_network).max(f64::from(load.replication));
        Self { count, by_disk, by_cores, by_network }
    }
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What it is for.
    pub load: Load,
    /// How many deployments, each with an equal share of the units.
    pub deployments: f64,
    /// What one of them needs.
    pub each: Deployment,
    /// What limits them, most pressing first.
    pub limits: Vec<Limit>,
    /// The cluster under all of them.
    pub brokers: Brokers,
    /// What to know before building it.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// The smallest number of deployments that carries a load, and what each of them needs.
    ///
    /// # Errors
    /// When values of the load cannot be, or no number of deployments is enough.
    pub fn of(load: &Load, figures: &Figures, catalogue: &Catalogue) -> Result<Self, PlanError> {
        load.check().map_err(PlanError::Load)?;
        let (deployments, each, mut limits) = smallest(load, figures, catalogue)?;
        limits.sort_by(|one, other| other.share().total_cmp(&one.share()));
        let brokers = Brokers::of(&each, deployments, load, figures);
        let mut plan = Self { load: load.clone(), deployments, each, limits, brokers, warnings: Vec::new() };
        plan.warnings = warnings::of(&plan, figures);
        Ok(plan)
    }

    /// The plan for people: what, how many, why. Figures are those that it was made with.
    #[must_use]
    pub fn lines(&self, figures: &Figures) -> Vec<Line> {
        report::lines(self, figures)
    }

    /// What all deployments need together of something that each needs so much of.
    #[must_use]
    pub fn total(&self, of_each: f64) -> f64 {
        of_each * self.deployments
    }
}

/// Deployments are added until one of them keeps all its limits. What they need grows less than their number: each has costs
/// that do not hang on its units (calls and transactions of its lanes), so the first guess is too small, never too large.
fn smallest(
    load: &Load,
    figures: &Figures,
    catalogue: &Catalogue,
) -> Result<(f64, Deployment, Vec<Limit>), PlanError> {
    let mut count = 1.0_f64;
    loop {
        let share = Load { units: load.units / count, ..load.clone() };
        let is_absurd = count > 1.0 && (count > DEPLOYMENTS_MAX || share.units < 1.0);
        let each = Deployment::of(&share, figures, catalogue);
        let limits = Limit::of(&each, count, load, figures);
        let Some(worst) = limits.iter().max_by(|one, other| one.share().total_cmp(&other.share())) else {
            return Ok((count, each, limits));
        };
        if worst.share() <= 1.0 && !is_absurd {
            return Ok((count, each, limits));
        }
        if is_absurd {
            let Limit { what, used, allowed, unit, .. } = *worst;
            return Err(PlanError::NoRoom { what, used, allowed, unit, deployments: count });
        }
        count = (count * worst.share()).ceil().max(count + 1.0);
    }
}
