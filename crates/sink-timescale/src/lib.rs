//! History in PostgreSQL or TimescaleDB, on the chain of links.
//!
//! A unit of work is one transaction: the lane's progress row (taken only if it holds the link that the unit follows),
//! its rows by binary COPY, its set-asides. So a batch is stored whole or not at all, and *already applied* is what the
//! progress row says, never a guess. A fold's states live in the rows that people read (`entities`): one per entity.
//!
//! [`Database`] is one process's way to the server, [`SqlSink`] what a projection lands in, [`Migrator`] what brings
//! the schema up to date, [`Database::maintain`] what keeps partitions and retention, [`Database::task_figures`] what
//! `/metrics` shows of tasks.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

mod bisect;
mod check;
mod connections;
mod copy;
mod database;
mod entities;
mod facts;
mod fault;
mod figures;
mod ledger;
mod maintain;
pub mod metrics;
mod migrate;
mod migrations;
mod sink;

pub use check::{POSTGRES_VERSION_MIN, Server};
pub use connections::ConnectionSettings;
pub use copy::{encode_chunk, in_index_order};
pub use database::Database;
pub use facts::{DatabaseFacts, JobFacts};
pub use maintain::{Maintained, Retention};
pub use metrics::TaskFigures;
pub use migrate::{Flavour, MigrateError, Migrator, Plan};
pub use migrations::{MIGRATIONS, Migration};
pub use sink::SqlSink;
