//! What a fact is: meta data, identities, one struct per schema, the topic catalogue.
//!
//! This crate is pure: no I/O, no clock, no randomness that was not passed in. Everything above it (wire, producer,
//! projections) agrees on these types; the schema files under `schemas/` are held to them by the contract tests.

mod decode;
mod event;
mod identity;
mod meta;
mod partitioner;
mod position;
mod reject;
mod validate;

pub mod catalogue;
pub mod ops;
pub mod robot;
pub mod task;
pub mod telemetry;

pub use decode::Decode;
pub use event::{Declared, DecodeOne, Event, EventSet, EventType, EventVisitor, FleetEvent};
pub use identity::{EntityKey, IdentityError, UnitKey, decode_id, encode_id};
pub use meta::{EventId, EventMeta, TimestampMs};
pub use partitioner::{murmur2, partition_of};
pub use position::{LogId, Position, Recorded};
pub use reject::{Reason, Reject};
pub use validate::{Check, Rule};
