//! How records get from the log to the lanes: one poll thread per projection, which never waits for a store.

mod buffer;
mod kafka;
mod poll_thread;
mod rebalance;

use std::time::Duration;

use fleetlog_projection::Record;

pub(crate) use buffer::{LaneFeed, Taking};
pub use kafka::KafkaIntake;
pub(crate) use poll_thread::{PollEnd, PollThread, PollThreadParts};
pub(crate) use rebalance::LaneTask;

use crate::Failure;

/// A lane's place within its projection: which of the subscribed topics, which partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneAt {
    /// Index into the projection's topics.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
}

/// What one poll brought.
#[derive(Debug)]
pub enum Polled {
    /// Nothing within the time given.
    Nothing,
    /// A record.
    Record(LaneAt, Record),
    /// Some partition of this number was read to its end; ask for positions.
    End(i32),
    /// The group gives or takes partitions; nothing happens until the intake is told to (un)assign.
    Rebalance(RebalanceEvent),
    /// A partition's next offset does not exist (librdkafka does not say which partition).
    OutOfRange,
    /// A commit that was not waited for ended: what it was about, and what was said.
    Committed(Vec<(LaneAt, i64)>, Result<(), CommitError>),
    /// Something that passes; said once.
    Trouble(String),
    /// Membership is over.
    Over(EndOfMembership),
}

/// Why a consumer can go on no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndOfMembership {
    /// For good: this projection stops.
    Failed(Failure),
    /// Somebody joined under its name: what the client said. Whether to join anew depends on who that is.
    Replaced(String),
}

/// What the group decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebalanceEvent {
    /// These lanes are ours now, in addition.
    Assigned(Vec<LaneAt>),
    /// These are ours no more.
    Revoked {
        /// Which.
        lanes: Vec<LaneAt>,
        /// They belong to somebody else already: nothing may be committed for them.
        lost: bool,
    },
}

/// Why an offset commit was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It passes (a rebalance under way, a broker away).
    #[error("{0}")]
    Transient(String),
    /// The group has another generation: these partitions are not ours.
    #[error("{0}")]
    NotOurs(String),
}

/// A member of a consumer group, as the poll thread drives it. One implementation polls Kafka record by record;
/// tests script another.
pub trait Intake: Send {
    /// Waits up to `timeout` for the next thing.
    fn poll(&mut self, timeout: Duration) -> Polled;
    /// Takes up lanes: each at its offset, or paused where that is not known yet.
    ///
    /// # Errors
    /// When the client refuses (the group moved on meanwhile).
    fn assign(&mut self, lanes: &[(LaneAt, Option<i64>)]) -> Result<(), Failure>;
    /// Gives lanes back.
    ///
    /// # Errors
    /// When the client refuses.
    fn unassign(&mut self, lanes: &[LaneAt]) -> Result<(), Failure>;
    /// Reads on from `offset`, resumed if it was paused. Nothing read before is delivered afterwards.
    ///
    /// # Errors
    /// When it is not possible now (the partition is not being fetched yet): try again.
    fn seek(&mut self, lane: LaneAt, offset: i64) -> Result<(), Failure>;
    /// The headers of a lane's records are read from `offset` on; those before may be [`Headers::UNREAD`](fleetlog_projection::Headers::UNREAD). Until this is said
    /// all are read.
    fn read_headers_from(&mut self, lane: LaneAt, offset: i64);
    /// Stops fetching a lane; what was fetched ahead is thrown away.
    fn pause(&mut self, lane: LaneAt);
    /// Where reading goes on: past everything delivered and past markers behind it. None right after a seek.
    fn position(&mut self, lane: LaneAt) -> Option<i64>;
    /// Has `notify` called, from any thread and soon, when there may be something to poll where there was nothing.
    fn on_readable(&mut self, notify: Box<dyn Fn() + Send + Sync>);
    /// Tells the group of progress, without waiting; [`Polled::Committed`] tells what came of it.
    fn commit(&mut self, offsets: &[(LaneAt, i64)]);
    /// Tells the group of progress and waits until it was taken in this member's generation.
    ///
    /// # Errors
    /// When it was not taken.
    fn commit_and_wait(&mut self, offsets: &[(LaneAt, i64)]) -> Result<(), CommitError>;
}
