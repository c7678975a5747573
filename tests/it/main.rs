//! Tests against real servers.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cli;
mod engine;
mod kafka;
mod kill;
mod producer;
mod schema_topic;
mod sql_tables;
mod topics;
mod verify;
mod wire;
