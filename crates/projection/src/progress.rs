//! Where a lane is, stored with the data.

use std::fmt;

use fleetlog_event::LogId;
use serde::{Deserialize, Serialize};

/// A lane: one partition of one projection version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// The projection's ID.
    pub projection: String,
    /// The projection's VERSION.
    pub version: u32,
    /// The topic's physical name (prefix included).
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

impl fmt::Display for LaneId {
    /// `{projection}@{version}:{topic}:{partition}`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}:{}", self.projection, self.version, self.topic, self.partition)
    }
}

/// The last record that a lane took, to notice a log that was replaced below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LastRecord {
    /// Its offset.
    pub offset: i64,
    /// [`crate::Record::hash`] of it.
    pub hash: u64,
}

/// The next offsets a lane will take, and of which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Progress {
    /// The topic's id.
    pub log: LogId,
    /// Next offset of the main topic.
    pub main: i64,
    /// Next offset of the lane's inbox.
    pub inbox: i64,
    /// The last record taken from the main topic, if any was.
    pub last: Option<LastRecord>,
}
