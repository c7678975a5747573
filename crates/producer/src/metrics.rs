//! The producer's metrics: names as constants, held against the docs by a test.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Records acknowledged by all in-sync replicas, by topic.
pub const ACKNOWLEDGED_RECORDS_TOTAL: &str = "fleetlog_producer_acknowledged_records_total";
/// Records that were given up, by topic.
pub const FAILED_RECORDS_TOTAL: &str = "fleetlog_producer_failed_records_total";
/// Fatal client errors that were survived with a new client.
pub const FATAL_ERRORS_TOTAL: &str = "fleetlog_producer_fatal_errors_total";
/// Records sent and not acknowledged yet.
pub const IN_FLIGHT_RECORDS: &str = "fleetlog_producer_in_flight_records";
/// Memory they take, in bytes, by estimate.
pub const IN_FLIGHT_BYTES: &str = "fleetlog_producer_in_flight_bytes";
/// From send to acknowledgement, in seconds.
pub const ACKNOWLEDGEMENT_SECONDS: &str = "fleetlog_producer_acknowledgement_seconds";

/// Every name above.
pub const NAMES: [&str; 6] = [
    ACKNOWLEDGED_RECORDS_TOTAL,
    FAILED_RECORDS_TOTAL,
    FATAL_ERRORS_TOTAL,
    IN_FLIGHT_RECORDS,
    IN_FLIGHT_BYTES,
    ACKNOWLEDGEMENT_SECONDS,
];

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS_S: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];

/// What producers count. Cheap to clone; all producers of a process may share one.
#[derive(Clone, Debug)]
pub struct ProducerMetrics {
    acknowledged: IntCounterVec,
    failed: IntCounterVec,
    pub(crate) fatal_errors: IntCounter,
    pub(crate) in_flight_records: IntGauge,
    pub(crate) in_flight_bytes: IntGauge,
    pub(crate) acknowledgement_seconds: Histogram,
}

/// The counters of one topic.
#[derive(Debug)]
pub(crate) struct TopicMetrics {
    pub(crate) acknowledged: IntCounter,
    pub(crate) failed: IntCounter,
}

impl ProducerMetrics {
    /// Metrics that nobody collects yet.
    ///
    /// # Errors
    /// When a name or label is not a legal one.
    pub fn unregistered() -> Result<Self, prometheus::Error> {
        let by_topic = |name, help| IntCounterVec::new(Opts::new(name, help), &["topic"]);
        let latency = HistogramOpts::new(ACKNOWLEDGEMENT_SECONDS, "From send to acknowledgement")
            .buckets(BUCKETS_S.to_vec());
        Ok(Self {
            acknowledged: by_topic(
                ACKNOWLEDGED_RECORDS_TOTAL,
                "Records acknowledged by all in-sync replicas",
            )?,
            failed: by_topic(FAILED_RECORDS_TOTAL, "Records that were given up")?,
            fatal_errors: IntCounter::new(
                FATAL_ERRORS_TOTAL,
                "Fatal client errors survived with a new client",
            )?,
            in_flight_records: IntGauge::new(IN_FLIGHT_RECORDS, "Records sent and not acknowledged yet")?,
            in_flight_bytes: IntGauge::new(
                IN_FLIGHT_BYTES,
                "Memory that records in flight take, by estimate",
            )?,
            acknowledgement_seconds: Histogram::with_opts(latency)?,
        })
    }

    /// Metrics that `registry` collects.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self::unregistered()?;
        registry.register(Box::new(metrics.acknowledged.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.fatal_errors.clone()))?;
        registry.register(Box::new(metrics.in_flight_records.clone()))?;
        registry.register(Box::new(metrics.in_flight_bytes.clone()))?;
        registry.register(Box::new(metrics.acknowledgement_seconds.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn topic(&self, name: &str) -> TopicMetrics {
        TopicMetrics {
            acknowledged: self.acknowledged.with_label_values(&[name]),
            failed: self.failed.with_label_values(&[name]),
        }
    }
}

impl Default for ProducerMetrics {
    #[expect(clippy::unwrap_used, reason = "constant names")]
    fn default() -> Self {
        // Unwrap safety: names and labels are constants, made legal by the test below.
        Self::unregistered().unwrap()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_collected() {
        let registry = Registry::new();
        let metrics = ProducerMetrics::register(&registry).unwrap();
        let topic = metrics.topic("task");
        topic.acknowledged.inc();
        topic.failed.inc();
        let mut collected: Vec<String> = registry.gather().iter().map(|f| f.name().to_owned()).collect();
        let mut names = NAMES.to_vec();
        collected.sort();
        names.sort_unstable();
        assert_eq!(collected, names);
    }
}
