//! VDA 5050 messages to fleetlog events.
//!
//! [`Mapper::line`] takes the MQTT messages of a recording (or of a bridge) one by one, in the order of their arrival,
//! and answers with the events each of them stands for. The one table of the mapping is `docs/vda5050.md`.
//!
//! What it guarantees:
//! - **Pure.** No clock, no I/O, no randomness: the same lines give the same events with the same ids, whatever was
//!   done before. An import that resumes replays the lines it has sent already, without sending.
//! - **Tolerant.** A message that fails the official schema is mapped as far as it goes. Only a message that is no
//!   JSON, lacks what the mapping needs, says what no event says, or speaks a version later than 3 ([`DeadReason`]) is
//!   dead: the caller sends it, untouched, to the dead letters.
//! - **Legal.** The events of a task follow its life cycle: after `Rejected`, `Completed`, `Failed` or `Cancelled`
//!   nothing moves it.
//! - **Bounded.** At most [`ORDERS_MAX`] orders are remembered per vehicle.
//!
//! What it does not: it has no hindsight. A vehicle that drops an order and takes it up again has failed it here.

mod connection;
mod emit;
mod factsheet;
mod faults;
mod instant_actions;
mod json;
mod line;
mod mapper;
mod orders;
mod outcome;
mod state;
mod telemetry;
mod time;
mod topic;
mod vehicle;
mod version;

pub use line::{Line, LineError};
pub use mapper::Mapper;
pub use orders::{ORDERS_MAX, task_id, unit_and_order_of};
pub use outcome::{DeadReason, Outcome, Verdict};
pub use topic::MessageKind;
