//! What is wrong with a deployment, why it matters and what to do: the judgements of `fleetlog doctor`.
//!
//! Every judgement is a function of facts that somebody else gathered: no I/O, no clock. It says nothing about what it
//! was not told, and a fact that cannot be seen is a finding of its own, never silently "ok".
//!
//! [`Check`] is the closed list of all there is to find; `docs/doctor.md` lists the same.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

pub mod brokers;
pub mod clock;
pub mod disk;
mod finding;
pub mod groups;
pub mod partitioner;
pub mod postgres;
pub mod records;
pub mod redis;
pub mod schemas;
pub mod topics;

pub use finding::{Area, Check, Finding, Report, Severity};
