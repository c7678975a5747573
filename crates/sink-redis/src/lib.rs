//! Hot state in Redis, on the chain of links.
//!
//! What it guarantees: each script call of a commit is taken once, in its place on the lane's chain, whoever sends it
//! and however often ([`fleetlog_projection::judge`]); one call changes an entity's state, version, readable fields
//! and places in lists together; set-asides are written before, or with, the entities they concern; a call that
//! meets a key of another type writes nothing.
//!
//! What it does not: a whole commit is *not* one atomic step. It is a chain of calls, each atomic, that the same
//! commit given again completes. A Redis that loses its tail is noticed by its link, not prevented from losing.
//!
//! Beside the sink: [`HotReader`], which reads hot state in pages, and [`Lease`], for workers of which one is to be active.

mod calls;
mod check;
mod connection;
mod facts;
mod fault;
mod figures;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod fuzz;
mod hot;
mod keys;
mod lease;
mod ledger;
pub mod metrics;
mod sink;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use connection::client;
pub use facts::{REDIS_VERSION_MIN, RedisFacts};
pub use figures::UnitList;
pub use hot::{Entity, HotReader, Page};
pub use keys::{lane_key, ledger_key};
pub use lease::Lease;
pub use metrics::{UnitCount, UnitFigures};
pub use sink::{RedisSink, RedisSinkSettings};
