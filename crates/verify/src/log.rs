//! What a recount needs of the log.

use fleetlog_event::{Decode, LogId};
use fleetlog_projection::Record;
use tokio::sync::mpsc;

use crate::VerifyError;

/// A topic as it is now.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its physical name.
    pub name: String,
    /// Its id.
    pub log: LogId,
    /// N of the duplicate rule.
    pub dedup_span_offsets: i64,
    /// What is there of each partition, by number.
    pub partitions: Vec<Range>,
}

impl Topic {
    /// How many partitions it has.
    pub(crate) fn count(&self) -> i32 {
        // A topic has at most some thousand partitions.
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// Its partitions with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (i32, Range)> + use<> {
        (0..).zip(self.partitions.clone())
    }
}

/// Offsets `[low, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first offset that is still there.
    pub low: i64,
    /// One past the last one that a reader of committed records sees.
    pub end: i64,
}

/// Batches of a partition's records, in order; ends after the last one, or with an error.
pub type Batches = mpsc::Receiver<Result<Vec<Record>, VerifyError>>;

/// The log, read from outside any group.
pub trait Log: Send + Sync {
    /// What decodes the records.
    type Decode: Decode + Send + Sync;

    /// The topic of that stem, as it is now.
    fn topic(&self, stem: &str) -> impl Future<Output = Result<Topic, VerifyError>> + Send;

    /// Reads `[from, to)` of a partition, committed records only. Bounded: reading waits for the reader.
    fn read(&self, topic: &str, partition: i32, from: i64, to: i64) -> Batches;

    /// Looks up what decoding these records needs.
    fn prepare(&self, records: &[Record]) -> impl Future<Output = Result<Self::Decode, VerifyError>> + Send;
}
