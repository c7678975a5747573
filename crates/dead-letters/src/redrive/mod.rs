//! Redrive: dead letters go back to the one group that did not take them, through its inbox.
//!
//! ```text
//! letters ─► plan (which go, which stay and why) ─► batches of commands, in log order ─► inbox ─► lane
//!                                                                    audit on `ops` ◄─ answers ◄─┘
//! ```
//!
//! A command is one record on `<group>-<topic>-inbox` ([`fleetlog_projection::Command`]); the lane that owns the partition
//! carries it out on its own chain. It is answered once the lane's stored `progress.inbox` is past it; then the lane's
//! ledger says what came of it. So success is what the lane committed, not what was sent.
//!
//! Guarantees:
//! - a letter whose entry is closed is not sent again: running the same command once more does nothing;
//! - the commands of a batch are one Kafka transaction, and commands of an earlier run that are not answered yet are waited for
//!   before anything is sent, so a run that was killed at any moment can be followed by another;
//! - of two jobs for one group the second is refused ([`Leases`]), and a job that lost its lease cannot send any more (its
//!   transactional id is fenced);
//! - each letter and what came of it is written down on topic `ops`, by name.
//!
//! Nothing here knows stores or projections: they are behind [`Lanes`]. Kafka is behind [`Road`], so that the rules are tested
//! without it.

mod anew;
mod answers;
mod audit;
mod dry;
mod handlers;
mod job;
mod kafka;
mod keeping;
mod lease;
mod messages;
mod plan;
mod request;
#[cfg(test)]
mod tests;
mod told;

use std::{collections::BTreeMap, fmt};

use fleetlog_event::{EntityKey, LogId, Reject, TimestampMs, ops::OpsEvent};
use fleetlog_kafka::{Admin, ClusterError, KafkaFault, OwnedRecord};
use fleetlog_producer::RawRecord;
use fleetlog_projection::{Fault, LedgerEntry, Progress, Record, Version};

pub use answers::Awaited;
pub(crate) use answers::{Answered, await_answers};
pub use audit::Outcomes;
pub use dry::{Direction, DryRun, Tried};
pub use job::execute;
pub(crate) use job::in_time;
pub use kafka::{KafkaRoad, KafkaRoadParts};
pub use lease::{Lease, Leases};
pub use messages::Message;
pub(crate) use messages::{fold_anew, send_messages};
pub use plan::{Candidate, Plan, PlanRow, Stays, Way, plan};
pub use request::{RedriveRequest, RequestError};
pub use told::{Ended, Redriven, Stop, Told};

use crate::{Place, ToolError};

/// A lane, as commands are addressed: one partition of a topic that a group reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneRef {
    /// The consumer group.
    pub group: String,
    /// The topic's physical name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

impl fmt::Display for LaneRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.group, self.topic, self.partition)
    }
}

/// A group of this fleet that reads a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The consumer group.
    pub group: String,
    /// The topic's physical name.
    pub topic: String,
    /// The group's inbox for it, physical name.
    pub inbox: String,
}

/// A handler of this fleet: what it could not do goes back to it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerGroup {
    /// Its consumer group.
    pub group: String,
    /// The topics that it reads, physical names.
    pub topics: Vec<String>,
    /// The topic of what is held for it, physical name.
    pub held: String,
}

/// A topic as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// Its id (KIP-516).
    pub log: LogId,
    /// How many partitions it has.
    pub partitions: i32,
}

impl LogFacts {
    /// Those of these topics (physical names) that there are.
    pub(crate) async fn of(admin: &Admin, names: &[&str]) -> Result<BTreeMap<String, Self>, Trouble> {
        let topics = admin.topics(names).await?.into_iter();
        Ok(topics.map(|(name, topic)| (name, Self { log: topic.id, partitions: topic.partitions })).collect())
    }
}

/// What today's projector would make of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// By offset: it would be taken, or rejected again.
    pub outcomes: BTreeMap<i64, Result<(), Reject>>,
    /// Other events, taken before, that would be rejected once these stand in their places.
    pub also_rejected: Vec<(i64, Reject)>,
}

/// A port cannot do what is asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Trouble {
    /// Transient: waiting helps. Fenced: another job has taken over. Permanent: neither.
    pub fault: Fault,
    /// What was tried and what was wrong.
    pub what: String,
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self { fault: fault(error.fault()), what: error.to_string() }
    }
}

fn fault(fault: KafkaFault) -> Fault {
    match fault {
        KafkaFault::Transient => Fault::Transient,
        KafkaFault::Permanent => Fault::Permanent,
    }
}

/// What is asked of whoever knows projections and their stores.
pub trait Lanes: Send + Sync {
    /// Every group of the fleet with each topic that it reads.
    fn readers(&self) -> &[Reader];

    /// Every handler of the fleet.
    fn handlers(&self) -> &[HandlerGroup] {
        &[]
    }

    /// Where a lane is, as stored; none before its first write.
    fn progress(&self, lane: &LaneRef) -> impl Future<Output = Result<Option<Progress>, Trouble>> + Send;

    /// The entries that a lane's ledger has of these offsets.
    fn entries(
        &self,
        lane: &LaneRef,
        log: LogId,
        offsets: &[i64],
    ) -> impl Future<Output = Result<BTreeMap<i64, LedgerEntry>, Trouble>> + Send;

    /// The versions that a lane has of entities, in their order; none of one that it does not know.
    fn versions(
        &self,
        lane: &LaneRef,
        keys: &[EntityKey],
    ) -> impl Future<Output = Result<Vec<Option<Version>>, Trouble>> + Send;

    /// Processes that are members of a group.
    fn members(&self, group: &str) -> impl Future<Output = Result<usize, Trouble>> + Send;

    /// What today's projector would make of these records of a lane, each in its place. Nothing is written.
    fn rehearse(
        &self,
        lane: &LaneRef,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<Rehearsal, Trouble>> + Send;
}

/// The last offset on each partition of inboxes.
pub type InboxOffsets = BTreeMap<(String, i32), i64>;

/// What a redrive does on Kafka.
pub trait Road: Send {
    /// The time, for leases and the audit trail.
    fn now(&self) -> TimestampMs;

    /// Those of these topics (physical names) that there are.
    fn logs(
        &self,
        topics: &[String],
    ) -> impl Future<Output = Result<BTreeMap<String, LogFacts>, Trouble>> + Send;

    /// The records at these places; those that retention took away are left out.
    fn fetch(
        &self,
        places: &[Place],
    ) -> impl Future<Output = Result<BTreeMap<Place, OwnedRecord>, Trouble>> + Send;

    /// The entity that the event in a record of this topic is about; or why it cannot go on that topic.
    fn entity_of(
        &self,
        topic: &str,
        record: &OwnedRecord,
    ) -> impl Future<Output = Result<Result<EntityKey, String>, Trouble>> + Send;

    /// Who redrives which group, by topic `ops`.
    fn leases(&self) -> impl Future<Output = Result<Leases, Trouble>> + Send;

    /// Writes events on topic `ops`; returns when they are acknowledged.
    fn write_down(&self, events: Vec<OpsEvent>) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Takes over the group's transactional id: whoever had it can send no more.
    fn take_over(&mut self, group: &str) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Sends all of the records in one transaction of the group, which was taken over before; where the last of them lies on
    /// each partition. A transaction whose outcome got lost is looked for on the inboxes.
    fn send(
        &mut self,
        group: &str,
        records: Vec<RawRecord>,
    ) -> impl Future<Output = Result<InboxOffsets, Trouble>> + Send;

    /// The last record at or behind `from` on each partition of inboxes; partitions without one are absent.
    fn last_commands(
        &self,
        from: &InboxOffsets,
    ) -> impl Future<Output = Result<InboxOffsets, Trouble>> + Send;
}

/// Why a redrive did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// The selection, or reading the letters.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A server, or a store.
    #[error(transparent)]
    Port(#[from] Trouble),
    /// Somebody else is at it.
    #[error("{} redrives group `{group}` ({}), until {} if nothing more is heard", .by.operator, .by.why, .until)]
    Held {
        /// The group.
        group: String,
        /// Who.
        by: Box<Lease>,
        /// Until when, RFC 3339.
        until: String,
    },
}
