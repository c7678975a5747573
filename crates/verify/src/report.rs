//! What a recount found.

use std::fmt;

use fleetlog_event::TimestampMs;
use serde::Serialize;

/// How a recount is made.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// How long to wait for progress to reach the ends that the log had at the start, in ms.
    pub wait_ms: u64,
    /// How many differences are told in full; all are counted.
    pub differences_max: usize,
    /// How many offsets share one count and hash (history).
    pub range_offsets: i64,
    /// The time now, by which entities may have expired.
    pub now: TimestampMs,
}

impl VerifySettings {
    /// Settings as they suit most, at the time `now`.
    #[must_use]
    pub fn at(now: TimestampMs) -> Self {
        Self { wait_ms: 30_000, differences_max: 10, range_offsets: 20_000, now }
    }
}

/// What kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The log says it must be there, and it is not.
    Missing,
    /// It is there, and the log knows nothing of it.
    Extra,
    /// It is there with other values.
    Different,
}

/// One difference, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind.
    pub kind: Kind,
    /// Where: a key, or table, partition and offset.
    pub at: String,
    /// What the log says and what the store holds.
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Different => "different",
        };
        write!(f, "{kind} {}: {}", self.at, self.detail)
    }
}

/// Which part of the log a lane was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneRange {
    /// The topic's physical name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset. Above 0 the log has lost its beginning to retention.
    pub from: i64,
    /// One past the last offset.
    pub to: i64,
    /// How many offsets progress lacks to the end that the log had at the start.
    pub behind: i64,
}

/// What a recount of one projection found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The projection's ID.
    pub projection: String,
    /// Its VERSION.
    pub version: u32,
    /// Entities (hot state) or rows (history) that were compared.
    pub compared: u64,
    /// What should be there and is not.
    pub missing: u64,
    /// What is there and should not be.
    pub extra: u64,
    /// What has other values.
    pub different: u64,
    /// Events that the projection set aside.
    pub set_aside: u64,
    /// Duplicates in the log.
    pub duplicates: u64,
    /// Offsets that progress lacks to the ends the log had at the start.
    pub behind: i64,
    /// Entities that expired by their own rule, and so may be absent.
    pub expired: u64,
    /// Entities and rows of which the log, cut by retention, does not tell enough.
    pub untold: u64,
    /// The parts of the log compared with.
    pub lanes: Vec<LaneRange>,
    /// The first differences, in full.
    pub differences: Vec<Difference>,
    /// How many differences are told in full.
    #[serde(skip)]
    differences_max: usize,
    /// Whether what it reads may well be empty.
    #[serde(skip)]
    may_be_idle: bool,
}

impl Report {
    pub(crate) fn new(projection: &str, version: u32, settings: &VerifySettings) -> Self {
        Self {
            projection: projection.to_owned(),
            version,
            differences_max: settings.differences_max,
            ..Self::default()
        }
    }

    pub(crate) fn that_may_be_idle(mut self, may_be_idle: bool) -> Self {
        self.may_be_idle = may_be_idle;
        self
    }

    /// Whether it compared something, or had every reason not to: what it reads (dead letters, actions of operators) may well
    /// be empty.
    #[must_use]
    pub fn proves_something(&self) -> bool {
        self.compared > 0 || self.may_be_idle
    }

    /// Whether the store holds exactly what the log says. A recount that compared nothing proves nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.proves_something() && self.behind == 0 && self.differences_total() == 0
    }

    /// All differences, told in full or not.
    #[must_use]
    pub fn differences_total(&self) -> u64 {
        self.missing + self.extra + self.different
    }

    /// Partitions whose log begins late, by retention: what was before cannot be compared.
    pub fn cut_lanes(&self) -> impl Iterator<Item = &LaneRange> {
        self.lanes.iter().filter(|lane| lane.from > 0)
    }

    pub(crate) fn differ(&mut self, kind: Kind, at: impl Into<String>, detail: impl FnOnce() -> String) {
        match kind {
            Kind::Missing => self.missing += 1,
            Kind::Extra => self.extra += 1,
            Kind::Different => self.different += 1,
        }
        if self.differences.len() < self.differences_max {
            self.differences.push(Difference { kind, at: at.into(), detail: detail() });
        }
    }
}
