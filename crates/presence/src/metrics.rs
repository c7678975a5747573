//! Presence's metrics: the fixed list that `docs/metrics.md` explains.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

use crate::Kind;

/// 1 while this process watches, 0 while it stands by.
pub const ACTIVE: &str = "fleetlog_presence_active";
/// Looks at hot state, by what became of them.
pub const LOOKS_TOTAL: &str = "fleetlog_presence_looks_total";
/// How long a look took, in seconds.
pub const LOOK_SECONDS: &str = "fleetlog_presence_look_seconds";
/// Events acknowledged, by kind.
pub const EVENTS_TOTAL: &str = "fleetlog_presence_events_total";
/// Units that are watched.
pub const UNITS: &str = "fleetlog_presence_units";
/// Units that are due and wait for the rate limit.
pub const WAITING_UNITS: &str = "fleetlog_presence_waiting_units";
/// Sites that are held back because nobody of them is heard.
pub const QUIET_SITES: &str = "fleetlog_presence_quiet_sites";

/// Every name above.
pub const NAMES: [&str; 7] =
    [ACTIVE, LOOKS_TOTAL, LOOK_SECONDS, EVENTS_TOTAL, UNITS, WAITING_UNITS, QUIET_SITES];

/// What became of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookOutcome {
    /// It counts.
    Current,
    /// The first one, or the first after a doubt: everybody has a full timeout from here.
    Anew,
    /// What was read is behind the log.
    Behind,
    /// A server did not answer.
    Failed,
}

impl LookOutcome {
    const ALL: [Self; 4] = [Self::Current, Self::Anew, Self::Behind, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Anew => "anew",
            Self::Behind => "behind",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of a process's worker.
#[derive(Clone, Debug)]
pub struct PresenceMetrics {
    /// See [`ACTIVE`].
    pub active: IntGauge,
    /// See [`LOOK_SECONDS`].
    pub look_seconds: Histogram,
    /// See [`UNITS`].
    pub units: IntGauge,
    /// See [`WAITING_UNITS`].
    pub waiting_units: IntGauge,
    /// See [`QUIET_SITES`].
    pub quiet_sites: IntGauge,
    looks: IntCounterVec,
    events: IntCounterVec,
}

impl PresenceMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When `registry` has one of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<_, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str, label: &str| -> Result<_, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let look_seconds = Histogram::with_opts(
            HistogramOpts::new(LOOK_SECONDS, "How long a look at hot state took")
                .buckets(prometheus::exponential_buckets(0.002, 2.0, 13)?),
        )?;
        registry.register(Box::new(look_seconds.clone()))?;
        let metrics = Self {
            active: gauge(ACTIVE, "1 while this process watches, 0 while it stands by")?,
            units: gauge(UNITS, "Units that are watched")?,
            waiting_units: gauge(WAITING_UNITS, "Units that are due and wait for the rate limit")?,
            quiet_sites: gauge(QUIET_SITES, "Sites held back because nobody of them is heard")?,
            looks: counter(LOOKS_TOTAL, "Looks at hot state, by what became of them", "outcome")?,
            events: counter(EVENTS_TOTAL, "Events acknowledged, by kind", "kind")?,
            look_seconds,
        };
        // From the start, so that a rate over them is right.
        LookOutcome::ALL.iter().for_each(|outcome| metrics.looks(*outcome, 0));
        Kind::ALL.iter().for_each(|kind| metrics.events(*kind, 0));
        Ok(metrics)
    }

    /// Counts looks.
    pub fn looks(&self, outcome: LookOutcome, looks: u64) {
        self.looks.with_label_values(&[outcome.as_str()]).inc_by(looks);
    }

    /// Counts events that were acknowledged.
    pub fn events(&self, kind: Kind, events: u64) {
        self.events.with_label_values(&[kind.as_str()]).inc_by(events);
    }

    /// This process watches nobody: its gauges say so.
    pub fn stand_by(&self) {
        for gauge in [&self.active, &self.units, &self.waiting_units, &self.quiet_sites] {
            gauge.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_list_is_registered_under_its_name() {
        let registry = Registry::new();
        let _metrics = PresenceMetrics::register(&registry).expect("registers");
        let mut found: Vec<String> =
            registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let mut names = NAMES.to_vec();
        found.sort();
        names.sort_unstable();
        assert_eq!(found, names);
    }
}
