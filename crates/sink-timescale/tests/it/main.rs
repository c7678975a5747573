//! The sink against real servers: the conformance suite, faults, migrations, partitions.
#![expect(clippy::unwrap_used, reason = "tests")]

mod aggregates;
mod conformance;
mod entities;
mod faults;
mod figures;
mod ledger_queries;
mod maintain;
mod migrate;
mod proxy;
mod refusals;
mod rows;
mod support;
mod views;
