//! Tests against real servers.

mod engine;
mod kafka;
mod producer;
mod schema_topic;
mod sql_tables;
mod topics;
mod wire;
