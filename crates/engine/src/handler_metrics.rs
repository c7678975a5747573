//! Metrics of handlers: the fixed list that `docs/metrics.md` explains.

use std::time::Duration;

use fleetlog_event::{Reason, ops::HaltCause};
use fleetlog_handler::{Change, HandlerError};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::{
    registering::Registering,
    restarts::{ShowRun, show_run},
};

/// Calls, by how they ended.
pub const CALLS_TOTAL: &str = "fleetlog_handler_calls_total";
/// How long calls took, in seconds.
pub const CALL_SECONDS: &str = "fleetlog_handler_call_seconds";
/// Records that have begun and are not done.
pub const IN_FLIGHT: &str = "fleetlog_handler_in_flight";
/// Records that went to a retry tier.
pub const RETRIES_TOTAL: &str = "fleetlog_handler_retries_total";
/// Records that were held because the circuit was open.
pub const HELD_TOTAL: &str = "fleetlog_handler_held_total";
/// Dead letters, by reason.
pub const DEAD_LETTERS_TOTAL: &str = "fleetlog_handler_dead_letters_total";
/// How late calls from a retry tier began, in seconds after they were due by the broker's clock.
pub const LATE_SECONDS: &str = "fleetlog_handler_late_seconds";
/// 1 while the circuit lets nothing or only trials through.
pub const CIRCUIT_OPEN: &str = "fleetlog_handler_circuit_open";
/// How often the circuit opened, trials that failed included.
pub const CIRCUIT_OPENINGS_TOTAL: &str = "fleetlog_handler_circuit_openings_total";
/// Offsets that retention took before the handler came to them.
pub const LOST_OFFSETS_TOTAL: &str = "fleetlog_handler_lost_offsets_total";
/// Offsets between what is committed and the end of the log.
pub const LAG_OFFSETS: &str = "fleetlog_handler_lag_offsets";
/// 1 for the cause by which the handler stands still.
pub const HALTED: &str = "fleetlog_handler_halted";
/// 1 while the handler runs in this process.
pub const UP: &str = "fleetlog_handler_up";

/// Every name above.
pub const NAMES: [&str; 13] = [
    CALLS_TOTAL,
    CALL_SECONDS,
    IN_FLIGHT,
    RETRIES_TOTAL,
    HELD_TOTAL,
    DEAD_LETTERS_TOTAL,
    LATE_SECONDS,
    CIRCUIT_OPEN,
    CIRCUIT_OPENINGS_TOTAL,
    LOST_OFFSETS_TOTAL,
    LAG_OFFSETS,
    HALTED,
    UP,
];

/// Registered once per process and shared by its handlers.
#[derive(Clone, Debug)]
pub struct HandlerMetrics {
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    in_flight: IntGaugeVec,
    retries: IntCounterVec,
    held: IntCounterVec,
    dead_letters: IntCounterVec,
    late_seconds: HistogramVec,
    circuit_open: IntGaugeVec,
    openings: IntCounterVec,
    lost: IntCounterVec,
    lag: IntGaugeVec,
    halted: IntGaugeVec,
    up: IntGaugeVec,
}

impl HandlerMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When `registry` has one of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = Registering(registry);
        Ok(Self {
            calls: make.counter(
                CALLS_TOTAL,
                "Calls of a handler, by how they ended",
                &["handler", "outcome"],
            )?,
            call_seconds: make.histogram(
                CALL_SECONDS,
                "How long calls took",
                &["handler"],
                CALL_BUCKETS.to_vec(),
            )?,
            in_flight: make.gauge(IN_FLIGHT, "Records that have begun and are not done", &["handler"])?,
            retries: make.counter(
                RETRIES_TOTAL,
                "Records that went to a retry tier",
                &["handler", "tier"],
            )?,
            held: make.counter(HELD_TOTAL, "Records held because the circuit was open", &["handler"])?,
            dead_letters: make.counter(
                DEAD_LETTERS_TOTAL,
                "Dead letters, by reason",
                &["handler", "reason"],
            )?,
            late_seconds: make.histogram(
                LATE_SECONDS,
                "How late calls from a retry tier began",
                &["handler"],
                LATE_BUCKETS.to_vec(),
            )?,
            circuit_open: make.gauge(CIRCUIT_OPEN, "1 while the circuit is not closed", &["handler"])?,
            openings: make.counter(CIRCUIT_OPENINGS_TOTAL, "How often the circuit opened", &["handler"])?,
            lost: make.counter(
                LOST_OFFSETS_TOTAL,
                "Offsets that retention took first",
                &["handler", "topic"],
            )?,
            lag: make.gauge(
                LAG_OFFSETS,
                "Offsets between what is committed and the log's end",
                &["handler", "topic", "partition"],
            )?,
            halted: make.gauge(
                HALTED,
                "1 for the cause by which the handler stands still",
                &["handler", "cause"],
            )?,
            up: make.gauge(UP, "1 while the handler runs", &["handler"])?,
        })
    }

    /// Those of one handler; all of them are there from the beginning.
    pub(crate) fn of(&self, handler: &str) -> Figures {
        for outcome in OUTCOMES {
            self.calls.with_label_values(&[handler, outcome]);
        }
        Figures {
            handler: handler.to_owned(),
            all: self.clone(),
            call_seconds: self.call_seconds.with_label_values(&[handler]),
            in_flight: self.in_flight.with_label_values(&[handler]),
            held: self.held.with_label_values(&[handler]),
            late_seconds: self.late_seconds.with_label_values(&[handler]),
            circuit_open: self.circuit_open.with_label_values(&[handler]),
            openings: self.openings.with_label_values(&[handler]),
        }
    }
}

const CALL_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
const LATE_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
const OUTCOMES: [&str; 5] = ["done", "retry", "rejected", "stop", "not_yet"];

/// Those of one handler.
#[derive(Debug)]
pub(crate) struct Figures {
    handler: String,
    all: HandlerMetrics,
    call_seconds: Histogram,
    pub(crate) in_flight: IntGauge,
    pub(crate) held: IntCounter,
    late_seconds: Histogram,
    circuit_open: IntGauge,
    openings: IntCounter,
}

impl ShowRun for Figures {
    fn show(&self, is_up: bool, halted: Option<HaltCause>) {
        show_run((&self.all.up, &self.all.halted), &self.handler, is_up, halted);
    }
}

impl Figures {
    pub(crate) fn called(&self, result: &Result<(), HandlerError>, took: Duration) {
        let outcome = match result {
            Ok(()) => OUTCOMES[0],
            Err(HandlerError::Retry(_) | HandlerError::RetryAfter { .. }) => OUTCOMES[1],
            Err(HandlerError::Reject(_)) => OUTCOMES[2],
            Err(HandlerError::Stop(_)) => OUTCOMES[3],
            Err(HandlerError::NotYet { .. }) => OUTCOMES[4],
        };
        self.all.calls.with_label_values(&[&self.handler, outcome]).inc();
        self.call_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn retried(&self, tier: usize) {
        self.all.retries.with_label_values(&[self.handler.as_str(), &tier.to_string()]).inc();
    }

    pub(crate) fn dead_letter(&self, reason: Reason) {
        self.all.dead_letters.with_label_values(&[self.handler.as_str(), reason.as_str()]).inc();
    }

    pub(crate) fn lost(&self, topic: &str, offsets: i64) {
        let offsets = u64::try_from(offsets).unwrap_or(0);
        self.all.lost.with_label_values(&[&self.handler, topic]).inc_by(offsets);
    }

    pub(crate) fn late(&self, by: Duration) {
        self.late_seconds.observe(by.as_secs_f64());
    }

    pub(crate) fn lag(&self, topic: &str, partition: i32, offsets: i64) {
        self.all.lag.with_label_values(&[self.handler.as_str(), topic, &partition.to_string()]).set(offsets);
    }

    pub(crate) fn no_lag(&self, topic: &str, partition: i32) {
        // It may not be there: nothing was known of the partition yet.
        drop(self.all.lag.remove_label_values(&[self.handler.as_str(), topic, &partition.to_string()]));
    }

    pub(crate) fn circuit(&self, change: Change) {
        match change {
            Change::Opened | Change::OpenedAgain => {
                self.circuit_open.set(1);
                self.openings.inc();
            }
            Change::Closed => self.circuit_open.set(0),
        }
    }
}
