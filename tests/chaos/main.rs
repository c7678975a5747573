//! The guarantees of DESIGN §3 under fire: a seed decides load, poison and faults; then a recount in another language.
//!
//! `docs/chaos.md` says how to run and replay. [`run::run`] is one run of one seed; [`faults`] is where a new kind of
//! fault is plugged in.

#![expect(clippy::unwrap_used, reason = "tests")]

mod faults;
mod fleet;
mod load;
mod mutants;
mod outcome;
mod plan;
mod recount;
mod recount_fails;
mod redriver;
mod report;
mod run;
mod seeds;
mod watcher;
