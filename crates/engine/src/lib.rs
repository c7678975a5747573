//! The engine: takes records off Kafka and drives projections into sinks, lane by lane.
//!
//! One [`ProjectionRunner`] per projection: one consumer and one poll thread (`intake`), one task per lane (`lane`),
//! its own async runtime, so that its CPU time can be told apart. The engine knows neither sinks nor projections:
//! it is generic over [`Projection`](fleetlog_projection::Projection) and [`Sink`](fleetlog_projection::Sink), and
//! reaches schemas, dead letters and facts about the log through the small traits of [`ports`].
//!
//! What it guarantees is in DESIGN §3: progress moves only with the data, on an unbroken chain; dead letters are
//! acknowledged before progress moves; a store that is down never blocks the poll thread; a stop finishes the write in
//! flight. What it does not: exactly one dead letter per set-aside event (a crash between publish and commit doubles
//! one), and taking over at once from a process that stopped for good (its static membership times out first).

mod config;
mod cpu;
mod dead_letter;
mod fault;
mod halting;
pub mod handler_metrics;
mod handling;
mod inbox;
mod intake;
mod kafka_logs;
mod lane;
mod member;
mod membership;
mod memory;
pub mod metrics;
pub mod ports;
mod refold;
mod registering;
mod rehearse;
mod restarts;
mod runner;
mod runtime;
mod status;
#[cfg(test)]
mod tests;
mod trace;

pub use config::{ConfigProblems, EngineConfig};
pub use dead_letter::{DeadLetter, Origin};
pub use fault::Failure;
pub use handler_metrics::HandlerMetrics;
pub use handling::{
    HandlerParts, HandlerRunner, HandlerSettings, HandlerTopic, StartAt, handler_group, handler_topics,
};
pub use inbox::{Inbox, InboxAt, InboxFeed, InboxWriter, KafkaInbox};
pub use intake::{CommitError, EndOfMembership, Intake, KafkaIntake, LaneAt, Polled, RebalanceEvent};
pub use kafka_logs::KafkaLogs;
pub use rehearse::{Rehearsal, Rehearsing};
pub use runner::{End, Outcome, ProjectionRunner, RunMode, RunnerParts, Stats, StatusHandle, group_name};
pub use runtime::ProjectionRuntime;
pub use status::{LaneSnapshot, LaneState, StatusSnapshot, Stillstand};
