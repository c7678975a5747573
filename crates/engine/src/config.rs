//! The engine's settings and the relations that have to hold between them.

use std::{fmt, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// Settings of one projection's run.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Name of this process among the projectors, the same after a restart: the static member of the group is
    /// `<instance>-<projection>`, so that a killed process is assigned again at once.
    pub instance: String,
    /// What the projection may take of memory for what is fetched, projected, cached and written: see `memory`.
    pub memory_bytes_max: usize,
    /// Largest batch of a lane, in records.
    pub batch_events_max: usize,
    /// Largest batch of a lane, in bytes.
    pub batch_bytes_max: usize,
    /// How long an assignment waits for the store to tell progress; lanes that are not known by then begin paused.
    pub assign_wait_ms: u64,
    /// How long a full lane may hold up the poll thread before its partition is paused.
    pub full_wait_ms: u64,
    /// How long the store may take to answer before the outcome counts as unknown and is tried again.
    pub store_timeout_ms: u64,
    /// First pause after a transient fault; doubles, with jitter.
    pub retry_delay_ms: u64,
    /// Longest pause between tries.
    pub retry_delay_ms_max: u64,
    /// How long a lane that catches up may hold a write.
    pub hold_ms_max: u64,
    /// A lane catches up from when as much work lies before it as takes so long, until it is at the end of the log.
    pub catch_up_ms: u64,
    /// How often an idle lane looks at its link, and moves progress over transaction markers.
    pub idle_interval_ms: u64,
    /// How often Kafka is told of progress (for lag tools only).
    pub offset_commit_interval_ms: u64,
    /// How long a stop or a revocation waits for writes in flight.
    pub drain_deadline_ms: u64,
    /// How long a broker holds its answer to a fetch for as long as nothing new is there. What is paused and read on again
    /// meanwhile is not part of that fetch, and waits for its end.
    pub fetch_wait_ms: u64,
    /// How long the broker waits for a silent member.
    pub session_timeout_ms: u64,
    /// How long the broker waits for a member that does not poll.
    pub poll_interval_ms_max: u64,
    /// A lane that would set aside more events in a row, without taking one, halts its projection.
    pub set_aside_in_a_row_max: usize,
    /// A lane that would set aside a larger part of its last events halts its projection; 1.0: any part is right.
    pub set_aside_ratio_max: f64,
    /// How many events that ratio is of; whole batches, so mostly a few more.
    pub set_aside_ratio_events: usize,
    /// Largest dead letter, in bytes: beyond, its texts are shortened and headers of the original are left out.
    pub dead_letter_bytes_max: usize,
    /// Threads of the projection's runtime.
    pub worker_threads: usize,
    /// Version of the application, for dead letters.
    pub application_version: String,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            instance: "fleetlog".into(),
            memory_bytes_max: 64 << 20,
            batch_events_max: 20_000,
            batch_bytes_max: 8 << 20,
            assign_wait_ms: 1_000,
            full_wait_ms: 100,
            store_timeout_ms: 60_000,
            retry_delay_ms: 50,
            retry_delay_ms_max: 2_000,
            hold_ms_max: 2_000,
            catch_up_ms: 100,
            idle_interval_ms: 1_000,
            offset_commit_interval_ms: 1_000,
            drain_deadline_ms: 8_000,
            // What librdkafka takes by itself.
            fetch_wait_ms: 500,
            session_timeout_ms: 10_000,
            poll_interval_ms_max: 300_000,
            set_aside_in_a_row_max: 1_000,
            set_aside_ratio_max: 0.5,
            set_aside_ratio_events: 2_000,
            dead_letter_bytes_max: 1_250_000,
            worker_threads: 2,
            application_version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigProblems(pub Vec<String>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl EngineConfig {
    /// Checks every setting and every relation.
    ///
    /// # Errors
    /// All problems at once, each naming the setting and what is expected.
    pub fn check(&self) -> Result<(), ConfigProblems> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        demand(!self.instance.is_empty(), "instance is empty".into());
        for (name, value) in [
            ("batch_events_max", self.batch_events_max),
            ("set_aside_in_a_row_max", self.set_aside_in_a_row_max),
            ("set_aside_ratio_events", self.set_aside_ratio_events),
            ("worker_threads", self.worker_threads),
        ] {
            demand(value > 0, format!("{name} is 0, expected at least 1"));
        }
        let ratio = self.set_aside_ratio_max;
        demand(
            ratio > 0.0 && ratio <= 1.0,
            format!("set_aside_ratio_max is {ratio}, expected more than 0 and at most 1"),
        );
        demand(
            self.memory_bytes_max >= 4 << 20,
            format!("memory_bytes_max is {}, expected at least 4194304", self.memory_bytes_max),
        );
        demand(
            self.batch_bytes_max <= self.memory_bytes_max,
            format!(
                "batch_bytes_max {} is more than memory_bytes_max {}",
                self.batch_bytes_max, self.memory_bytes_max
            ),
        );
        for (small, large) in [
            (("drain_deadline_ms", self.drain_deadline_ms), ("session_timeout_ms", self.session_timeout_ms)),
            (("assign_wait_ms", self.assign_wait_ms), ("session_timeout_ms", self.session_timeout_ms)),
            (("full_wait_ms", self.full_wait_ms), ("session_timeout_ms", self.session_timeout_ms)),
            (
                ("session_timeout_ms", self.session_timeout_ms),
                ("poll_interval_ms_max", self.poll_interval_ms_max),
            ),
            (("retry_delay_ms", self.retry_delay_ms), ("retry_delay_ms_max", self.retry_delay_ms_max + 1)),
        ] {
            let problem = format!("{} {} has to be less than {} {}", small.0, small.1, large.0, large.1);
            demand(small.1 < large.1, problem);
        }
        demand(
            self.session_timeout_ms >= 6_000,
            "session_timeout_ms is below the brokers' minimum of 6000".into(),
        );
        demand(self.retry_delay_ms > 0 && self.idle_interval_ms > 0, "a pause of 0 ms would spin".into());
        if problems.is_empty() { Ok(()) } else { Err(ConfigProblems(problems)) }
    }

    /// The pauses between tries of what fails for a reason that passes.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(self.retry_delay_ms))
            .with_max_delay(Duration::from_millis(self.retry_delay_ms_max))
            .with_jitter()
            .without_max_times()
            .build()
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.store_timeout_ms)
    }

    pub(crate) fn idle_interval(&self) -> Duration {
        Duration::from_millis(self.idle_interval_ms)
    }

    pub(crate) fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.drain_deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold() {
        assert_eq!(EngineConfig::default().check(), Ok(()));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let config = EngineConfig {
            instance: String::new(),
            drain_deadline_ms: 20_000,
            worker_threads: 0,
            memory_bytes_max: 1,
            ..EngineConfig::default()
        };
        let ConfigProblems(problems) = config.check().expect_err("four problems");
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(
            problems
                .iter()
                .any(|p| p == "drain_deadline_ms 20000 has to be less than session_timeout_ms 10000")
        );
    }
}
