//! Local servers and names for tests.
//!
//! - [`Stack`]: the addresses of the stack that `make stack` starts (or that the environment names).
//! - [`unique`]: names that no other test uses, so that tests share servers without seeing each other.
//! - [`Database`]: a database of one's own on the stack's PostgreSQL, dropped at the end.
//! - [`RedisServer`], [`PostgresServer`], [`KafkaServer`], [`PgliteServer`]: private servers that a test may kill,
//!   pause and restart. They end with the value that holds them, and with the thread that started them.
//! - [`Fleetlog`]: the `fleetlog` binary as a child process.
//!
//! Nothing here asserts anything about fleetlog itself. Errors are `anyhow`: a test prints them and fails.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

mod binary;
mod database;
mod kafka;
mod pglite;
mod postgres;
mod process;
mod redis_server;
mod stack;

pub use binary::{Fleetlog, Output, Running};
pub use database::{Database, fresh_database};
pub use kafka::KafkaServer;
pub use pglite::PgliteServer;
pub use postgres::PostgresServer;
pub use redis_server::RedisServer;
pub use stack::{Stack, python, unique, workspace_root};
