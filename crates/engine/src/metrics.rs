//! The engine's metrics: the fixed list that `docs/metrics.md` explains.

use fleetlog_event::ops::HaltCause;
use fleetlog_projection::LaneId;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::{registering::Registering, restarts::show_run};

/// Events taken from the log (duplicates not among them, set-aside ones are).
pub const EVENTS_TOTAL: &str = "fleetlog_events_total";
/// Records dropped because they were the same event sent again.
pub const DUPLICATES_TOTAL: &str = "fleetlog_duplicates_total";
/// Events set aside, by reason.
pub const SET_ASIDE_TOTAL: &str = "fleetlog_set_aside_total";
/// How often a lane found its chain broken.
pub const FENCED_TOTAL: &str = "fleetlog_fenced_total";
/// Tries that failed and were repeated.
pub const TRANSIENT_RETRIES_TOTAL: &str = "fleetlog_transient_retries_total";
/// How long the store took to take a batch, in seconds, retries included.
pub const COMMIT_SECONDS: &str = "fleetlog_commit_seconds";
/// From an event's record timestamp to its commit in the store, in seconds.
pub const VISIBLE_SECONDS: &str = "fleetlog_visible_seconds";
/// Events of a batch.
pub const BATCH_EVENTS: &str = "fleetlog_batch_events";
/// Bytes that lanes hold of fetched but uncommitted records.
pub const BUFFERED_BYTES: &str = "fleetlog_buffered_bytes";
/// The next offset a lane will take.
pub const PROGRESS_OFFSET: &str = "fleetlog_progress_offset";
/// Offsets between a lane's progress and the end of its log.
pub const LAG_OFFSETS: &str = "fleetlog_lag_offsets";
/// Commands carried out, by what came of them.
pub const COMMANDS_TOTAL: &str = "fleetlog_commands_total";
/// 1 while the projection runs, 0 while it stands still or has stopped.
pub const PROJECTION_UP: &str = "fleetlog_projection_up";
/// 1 of the cause for which a projection stands still until it is resumed, 0 of the others.
pub const PROJECTION_HALTED: &str = "fleetlog_projection_halted";

/// Every name above.
pub const NAMES: [&str; 14] = [
    EVENTS_TOTAL,
    DUPLICATES_TOTAL,
    SET_ASIDE_TOTAL,
    FENCED_TOTAL,
    TRANSIENT_RETRIES_TOTAL,
    COMMIT_SECONDS,
    VISIBLE_SECONDS,
    BATCH_EVENTS,
    BUFFERED_BYTES,
    PROGRESS_OFFSET,
    LAG_OFFSETS,
    COMMANDS_TOTAL,
    PROJECTION_UP,
    PROJECTION_HALTED,
];

const LANE: [&str; 3] = ["projection", "topic", "partition"];

/// The engine's metrics, registered once per process and shared by its projections.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    events: IntCounterVec,
    duplicates: IntCounterVec,
    set_aside: IntCounterVec,
    fenced: IntCounterVec,
    retries: IntCounterVec,
    commit_seconds: HistogramVec,
    visible_seconds: HistogramVec,
    batch_events: HistogramVec,
    buffered_bytes: IntGaugeVec,
    progress: IntGaugeVec,
    lag: IntGaugeVec,
    commands: IntCounterVec,
    up: IntGaugeVec,
    halted: IntGaugeVec,
}

impl EngineMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When `registry` has one of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = Registering(registry);
        let by_reason = ["projection", "topic", "partition", "reason"];
        Ok(Self {
            events: make.counter(EVENTS_TOTAL, "Events taken from the log", &LANE)?,
            duplicates: make.counter(
                DUPLICATES_TOTAL,
                "Records dropped as the same event sent again",
                &LANE,
            )?,
            set_aside: make.counter(SET_ASIDE_TOTAL, "Events set aside", &by_reason)?,
            fenced: make.counter(FENCED_TOTAL, "How often a lane found its chain broken", &LANE)?,
            retries: make.counter(TRANSIENT_RETRIES_TOTAL, "Tries that failed and were repeated", &LANE)?,
            commit_seconds: make.histogram(
                COMMIT_SECONDS,
                "How long the store took to take a batch",
                &["projection"],
                prometheus::exponential_buckets(0.000_5, 2.0, 16)?,
            )?,
            visible_seconds: make.histogram(
                VISIBLE_SECONDS,
                "From an event's record timestamp to its commit in the store",
                &["projection"],
                prometheus::exponential_buckets(0.001, 1.5, 28)?,
            )?,
            batch_events: make.histogram(
                BATCH_EVENTS,
                "Events of a batch",
                &["projection"],
                prometheus::exponential_buckets(1.0, 4.0, 9)?,
            )?,
            buffered_bytes: make.gauge(
                BUFFERED_BYTES,
                "What the lane holds of memory: fetched, projected, cached and under way",
                &LANE,
            )?,
            progress: make.gauge(PROGRESS_OFFSET, "The next offset a lane will take", &LANE)?,
            lag: make.gauge(LAG_OFFSETS, "Offsets between progress and the end of the log", &LANE)?,
            commands: make.counter(
                COMMANDS_TOTAL,
                "Commands of the inbox carried out, by what came of them",
                &["projection", "topic", "partition", "outcome"],
            )?,
            up: make.gauge(
                PROJECTION_UP,
                "1 while the projection runs, 0 while it stands still or has stopped",
                &["projection"],
            )?,
            halted: make.gauge(
                PROJECTION_HALTED,
                "1 of the cause for which the projection stands still until it is resumed",
                &["projection", "cause"],
            )?,
        })
    }

    /// Shows whether a projection runs, and for which cause it stands still.
    pub(crate) fn show_run(&self, projection: &str, is_up: bool, halted: Option<HaltCause>) {
        show_run((&self.up, &self.halted), projection, is_up, halted);
    }

    pub(crate) fn lane(&self, lane: &LaneId) -> LaneMetrics {
        let partition = lane.partition.to_string();
        let labels = [lane.projection.as_str(), lane.topic.as_str(), partition.as_str()];
        LaneMetrics {
            events: self.events.with_label_values(&labels),
            duplicates: self.duplicates.with_label_values(&labels),
            fenced: self.fenced.with_label_values(&labels),
            retries: self.retries.with_label_values(&labels),
            commit_seconds: self.commit_seconds.with_label_values(&labels[..1]),
            visible_seconds: self.visible_seconds.with_label_values(&labels[..1]),
            batch_events: self.batch_events.with_label_values(&labels[..1]),
            buffered_bytes: self.buffered_bytes.with_label_values(&labels),
            progress: self.progress.with_label_values(&labels),
            lag: self.lag.with_label_values(&labels),
            all: self.clone(),
            labels: [lane.projection.clone(), lane.topic.clone(), partition],
        }
    }
}

/// One lane's metrics, looked up once. Its gauges are removed when it goes: a lane that is elsewhere has none here.
#[derive(Debug)]
pub(crate) struct LaneMetrics {
    pub(crate) events: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) fenced: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) visible_seconds: Histogram,
    pub(crate) batch_events: Histogram,
    pub(crate) buffered_bytes: IntGauge,
    pub(crate) progress: IntGauge,
    pub(crate) lag: IntGauge,
    all: EngineMetrics,
    labels: [String; 3],
}

impl LaneMetrics {
    pub(crate) fn set_aside(&self, reason: &str) {
        let [projection, topic, partition] = &self.labels;
        self.all.set_aside.with_label_values(&[projection, topic, partition, reason]).inc();
    }
}

impl LaneMetrics {
    pub(crate) fn commands(&self, outcome: &str, count: usize) {
        let [projection, topic, partition] = &self.labels;
        let labels = [projection, topic, partition, outcome];
        self.all.commands.with_label_values(&labels).inc_by(count as u64);
    }
}

impl Drop for LaneMetrics {
    fn drop(&mut self) {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        for gauge in [&self.all.buffered_bytes, &self.all.progress, &self.all.lag] {
            // Gone already if the same lane came and went twice at once; nothing is lost.
            let _ = gauge.remove_label_values(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_list_is_registered_under_its_name() {
        let registry = Registry::new();
        let metrics = EngineMetrics::register(&registry).expect("registers");
        let lane = LaneId { projection: "p".into(), version: 1, topic: "t".into(), partition: 3 };
        let of_lane = metrics.lane(&lane);
        of_lane.set_aside("no_key");
        of_lane.commands("taken", 1);
        metrics.show_run("p", true, None);
        let found: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        for name in NAMES {
            assert!(found.iter().any(|f| f == name), "{name} is not in {found:?}");
        }
        assert!(EngineMetrics::register(&registry).is_err(), "once per registry");
        drop(of_lane);
        let left: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert!(
            !left.iter().any(|name| name == LAG_OFFSETS),
            "gauges of a lane that left are gone: {left:?}"
        );
    }
}
