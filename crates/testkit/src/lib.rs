//! Local servers and names for tests.
//!
//! - [`Stack`]: the addresses of the stack that `make stack` starts (or that the environment names).
//! - [`unique`]: names that no other test uses, so that tests share servers without seeing each other.
//! - [`Database`]: a database of one's own on the stack's PostgreSQL, dropped at the end.
//! - [`RedisServer`], [`PostgresServer`], [`KafkaServer`], [`KafkaCluster`], [`PgliteServer`]: private servers that a
//!   test may kill, pause and restart. They end with the value that holds them, and with the thread that started them.
//! - [`FaultProxy`]: a way to a server that can be refused, cut, half-open, slow.
//! - [`Authority`]: certificates made when the test runs, for servers of one's own with TLS and passwords switched on
//!   (`start_secure`); [`TlsFront`]: TLS and a password before an HTTP server that has neither.
//! - [`WallClock`]: a wall clock that jumps, for a process under test.
//! - [`records`]: what lies on a topic; [`delete_before`]: what retention does to it.
//! - [`Fleetlog`]: the `fleetlog` binary as a child process.
//! - [`fuzz`]: seeded inputs over a corpus, with memory and time bounded.
//!
//! Nothing here asserts anything about fleetlog itself. Errors are `anyhow`: a test prints them and fails.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

mod binary;
mod certificates;
mod clock;
mod cluster;
mod database;
mod disk;
pub mod fuzz;
mod kafka;
mod pglite;
mod postgres;
mod process;
mod proxy;
mod redis_server;
mod stack;
mod tls_front;
mod topic;

pub use binary::{Fleetlog, Output, Running};
pub use certificates::{Authority, ServerIdentity, Validity};
pub use clock::WallClock;
pub use cluster::KafkaCluster;
pub use database::{Database, fresh_database};
pub use kafka::{KafkaServer, SaslListener};
pub use pglite::PgliteServer;
pub use postgres::{AllConnections, PostgresServer};
pub use process::ServerProcess;
pub use proxy::{Direction, FaultProxy, Way};
pub use redis_server::{RedisServer, RedisSnapshot, redis_connection};
pub use stack::{Stack, kafka_data, python, unique, workspace_root};
pub use tls_front::TlsFront;
pub use topic::{delete_before, records};
