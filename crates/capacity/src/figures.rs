//! Figures: what things cost, each with its unit and where it comes from.

use serde::{Deserialize, Serialize};

/// How a figure is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A row of the bench's results, or a quotient of two of its numbers.
    Measured,
    /// Counted from layouts; not seen in a running store.
    Computed,
    /// A guess: nobody has measured it.
    Estimated,
    /// A limit that is set, no cost.
    Chosen,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The number, above 0.
    pub value: f64,
    /// What it counts; each figure has one unit, which is checked.
    pub unit: String,
    /// How it is known.
    pub basis: Basis,
    /// The bench row or the reckoning that it comes from.
    pub from: String,
}

/// A text that holds no figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FiguresError {
    /// No TOML, or a figure is missing, unknown or of another form.
    #[error("figures cannot be read: {0}")]
    Form(String),
    /// Figures that cannot be: every one of them.
    #[error("{}", .0.join("; "))]
    Wrong(Vec<String>),
}

macro_rules! figures {
    ($( $(#[doc = $doc:literal])+ $name:ident: $unit:literal, )+) => {
        /// All figures; units are part of the names (`_us` are microseconds of CPU).
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Figures { $( $(#[doc = $doc])+ pub $name: Figure, )+ }

        impl Figures {
            /// Every figure by its name, in the order of the file.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, &Figure)> {
                vec![$((stringify!($name), &self.$name)),+]
            }

            fn units() -> Vec<&'static str> {
                vec![$($unit),+]
            }
        }
    };
}

figures! {
    /// A producer's CPU for an event.
    producer_us_per_event: "us/event",
    /// The projector's CPU for an event of telemetry that is folded.
    hot_us_per_event: "us/event",
    /// The projector's CPU for an entity that is written.
    hot_us_per_entity: "us/entity",
    /// The projector's CPU for a write of a lane to Redis, whatever it holds.
    hot_us_per_write: "us/write",
    /// The projector's CPU for a row of telemetry.
    history_us_per_row: "us/row",
    /// The projector's CPU for a transaction of a lane, whatever it holds.
    history_us_per_write: "us/write",
    /// The projector's CPU for an event of a robot or task, in each projection that takes it.
    other_us_per_event: "us/event",
    /// Shortest time from a lane's write to its next, in Redis.
    hot_write_ms: "ms",
    /// The same in PostgreSQL.
    sql_write_ms: "ms",
    /// Redis' CPU for an entity.
    redis_us_per_entity: "us/entity",
    /// Redis' CPU for a script call, whatever it holds.
    redis_us_per_call: "us/call",
    /// What a unit's last telemetry takes in Redis.
    redis_unit_bytes: "byte",
    /// What a unit's status takes in Redis.
    redis_status_bytes: "byte",
    /// What a task takes in Redis.
    redis_task_bytes: "byte",
    /// Memory of the process over what the data take.
    redis_overhead: "ratio",
    /// What a record of telemetry takes on Kafka, in a large batch.
    kafka_record_bytes: "byte",
    /// What a batch of telemetry takes beside its records.
    kafka_batch_bytes: "byte",
    /// What a record of a robot or task takes on Kafka.
    kafka_small_record_bytes: "byte",
    /// How long a producer collects a batch.
    kafka_linger_ms: "ms",
    /// The leader's CPU for an event produced.
    kafka_produce_us_per_event: "us/event",
    /// The CPU of each further replica for an event.
    kafka_replica_us_per_event: "us/event",
    /// The leader's CPU for an event read, for each group.
    kafka_consume_us_per_event: "us/event",
    /// A broker's CPU for a request, whatever it holds.
    kafka_us_per_request: "us/request",
    /// PostgreSQL's CPU for a row of telemetry.
    sql_us_per_row: "us/row",
    /// PostgreSQL's CPU for a transaction, whatever it holds.
    sql_us_per_write: "us/write",
    /// PostgreSQL's CPU for an event of a robot or task.
    sql_us_per_other_event: "us/event",
    /// Rows that one connection takes.
    sql_rows_per_connection: "row/s",
    /// A row of telemetry in the heap.
    sql_row_bytes: "byte",
    /// Its entry in the index.
    sql_row_index_bytes: "byte",
    /// A row of telemetry in a compressed chunk.
    sql_row_compressed_bytes: "byte",
    /// WAL of a row of telemetry.
    sql_wal_bytes_per_row: "byte",
    /// A row of `telemetry_1m` with its indexes.
    sql_minute_row_bytes: "byte",
    /// The same, compressed.
    sql_minute_compressed_bytes: "byte",
    /// A row of `unit_event` with its index.
    sql_unit_event_bytes: "byte",
    /// A row of `task_event` with its indexes.
    sql_task_event_bytes: "byte",
    /// A row of either in a compressed chunk.
    sql_event_compressed_bytes: "byte",
    /// A task in ledger and milestones, with indexes.
    sql_task_bytes: "byte",
    /// CPU of the job that makes `telemetry_1m`, for a row of telemetry.
    sql_rollup_us_per_row: "us/row",
    /// CPU of the job that compresses, for a row of telemetry.
    sql_compress_us_per_row: "us/row",
    /// A page of an index.
    index_leaf_bytes: "byte",
    /// Events of a task's life.
    events_per_task: "event",
    /// Memory of a `fleetlog run`.
    process_memory_bytes: "byte",
    /// Memory of a `fleetlog run` for a unit and hot projection, so that states stay in it.
    cached_unit_bytes: "byte",
    /// The largest Redis.
    redis_memory_max_bytes: "byte",
    /// The most rows that one database takes.
    sql_rows_max_per_s: "row/s",
    /// The largest database.
    sql_disk_max_bytes: "byte",
    /// The largest disk of a broker.
    broker_disk_max_bytes: "byte",
    /// Cores of a broker.
    broker_cores: "core",
    /// Network of a broker, each way.
    broker_network_bytes_per_s: "byte/s",
}

impl Figures {
    /// The figures of `figures.toml`, compiled in.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "the file is compiled in and tested")]
    pub fn builtin() -> Self {
        // Unwrap safety: constant input, parsed by a test of this crate.
        Self::parse(include_str!("../figures.toml")).unwrap()
    }

    /// Reads figures in the form of `figures.toml`: every one has to be there.
    ///
    /// # Errors
    /// When the text has another form, or figures that are no number above 0 or have another unit: all of them at once.
    pub fn parse(text: &str) -> Result<Self, FiguresError> {
        let figures: Self = toml::from_str(text).map_err(|error| FiguresError::Form(error.to_string()))?;
        let wrong: Vec<String> = figures
            .named()
            .into_iter()
            .zip(Self::units())
            .filter_map(|((name, figure), unit)| figure.wrong(name, unit))
            .collect();
        if wrong.is_empty() { Ok(figures) } else { Err(FiguresError::Wrong(wrong)) }
    }

    /// Names of the figures that nobody has measured or counted.
    #[must_use]
    pub fn estimated(&self) -> Vec<&'static str> {
        let estimated = |figure: &Figure| figure.basis == Basis::Estimated;
        self.named().into_iter().filter_map(|(name, figure)| estimated(figure).then_some(name)).collect()
    }
}

impl Figure {
    fn wrong(&self, name: &str, unit: &str) -> Option<String> {
        if !(self.value.is_finite() && self.value > 0.0) {
            return Some(format!("figure `{name}` is {}; expected a number above 0", self.value));
        }
        (self.unit != unit).then(|| format!("figure `{name}` is in `{}`; expected `{unit}`", self.unit))
    }

    /// The value in seconds of CPU, of a figure in microseconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.value / 1e6
    }
}
