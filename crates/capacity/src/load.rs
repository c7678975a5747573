//! What a fleet sends, and what is wanted of its log.

use serde::Serialize;

use crate::SECONDS_PER_DAY;

/// What a fleet sends, and what is wanted. Rates are means over the busiest hour: peaks are what headroom is for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// How many units.
    pub units: f64,
    /// Telemetry of each, events a second.
    pub hz: f64,
    /// Events of topic `robot` of each unit, a day.
    pub robot_events_per_day: f64,
    /// Tasks of each unit, a day.
    pub tasks_per_day: f64,
    /// How long rows of telemetry are kept in SQL, in seconds.
    pub retention_s: f64,
    /// After how long what is kept for ever is looked at, in seconds.
    pub horizon_s: f64,
    /// Copies of each partition.
    pub replication: u32,
    /// Share of every server that stays free: for peaks, for catching up, for a neighbour that died. 0 to 0.9.
    pub headroom: f64,
    /// How many times its load the fleet may grow to: partitions of keyed topics are fixed, so they are made for that.
    pub growth: f64,
    /// How late an event may become visible in Redis, in milliseconds.
    pub latency_ms: f64,
    /// Processes that send telemetry to one deployment.
    pub producers: u32,
    /// Processes `fleetlog run` of a deployment, at least: with two, one may be killed and somebody goes on.
    pub processes_min: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            units: 1000.0,
            hz: 1.0,
            robot_events_per_day: 10.0,
            tasks_per_day: 1.0,
            retention_s: 90.0 * SECONDS_PER_DAY,
            horizon_s: 365.0 * SECONDS_PER_DAY,
            replication: 3,
            headroom: 0.3,
            growth: 2.0,
            latency_ms: 1000.0,
            producers: 2,
            processes_min: 2,
        }
    }
}

/// One value of a load that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what} is {value}; expected {least} to {most} {unit}")]
pub struct LoadError {
    /// Which value.
    pub what: &'static str,
    /// What it is.
    pub value: f64,
    /// The least that it may be.
    pub least: f64,
    /// The most that it may be.
    pub most: f64,
    /// Of what.
    pub unit: &'static str,
}

/// The most events a second that are planned for: beyond, formulas fitted to one machine say nothing.
pub const EVENTS_PER_S_MAX: f64 = 1e9;

const PRODUCT: &str = "units x hz";
const YEARS_100_S: f64 = 100.0 * 365.0 * SECONDS_PER_DAY;

impl Load {
    /// Telemetry of all units, events a second.
    #[must_use]
    pub fn events_per_s(&self) -> f64 {
        self.units * self.hz
    }

    /// Whether every value can be: a number, and of a size that formulas hold for.
    ///
    /// # Errors
    /// Every value that cannot, with what is expected.
    pub fn check(&self) -> Result<(), Vec<LoadError>> {
        let hour_s = 3600.0;
        let bounds = [
            ("units", self.units, 1.0, 1e10, "units"),
            ("hz", self.hz, 1e-6, 1e4, "events a second and unit"),
            (PRODUCT, self.events_per_s(), 0.0, EVENTS_PER_S_MAX, "events a second"),
            ("robot events a day", self.robot_events_per_day, 0.0, 1e5, "events a day and unit"),
            ("tasks a day", self.tasks_per_day, 0.0, 1e5, "tasks a day and unit"),
            ("retention", self.retention_s, hour_s, YEARS_100_S, "seconds (an hour to 100 years)"),
            ("horizon", self.horizon_s, hour_s, YEARS_100_S, "seconds (an hour to 100 years)"),
            ("replication", f64::from(self.replication), 1.0, 9.0, "copies"),
            ("headroom", self.headroom, 0.0, 0.9, "(a share)"),
            ("growth", self.growth, 1.0, 100.0, "times the load"),
            ("latency", self.latency_ms, 1.0, 3_600_000.0, "ms"),
            ("producers", f64::from(self.producers), 1.0, 1e5, "processes"),
            ("processes of a deployment", f64::from(self.processes_min), 1.0, 1e5, "processes"),
        ];
        let mut wrong: Vec<LoadError> = bounds
            .into_iter()
            // Not `value < least || value > most`: NaN is neither.
            .filter(|(_, value, least, most, _)| !(*value >= *least && *value <= *most))
            .map(|(what, value, least, most, unit)| LoadError { what, value, least, most, unit })
            .collect();
        // The product of what is wrong already says nothing new.
        if wrong.iter().any(|error| matches!(error.what, "units" | "hz")) {
            wrong.retain(|error| error.what != PRODUCT);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The share of a server that may be used.
    pub(crate) fn usable(&self) -> f64 {
        1.0 - self.headroom
    }
}
