//! How much of everything a fleet needs: formulas over measured costs.
//!
//! [`Load`] (what a fleet sends, what is wanted) and [`Figures`] (what things cost, `figures.toml`) make a [`Plan`]: how many
//! deployments of fleetlog, and what each of them has of partitions, processes, Redis and PostgreSQL. A *deployment* is what one
//! set of settings describes: one `kafka.topic_prefix`, one Redis, one database, and the `fleetlog run` that serve them. Progress
//! is stored with the data, so the lanes of a topic cannot be shared out among several stores: where one Redis or one database
//! is not enough, the fleet is cut into several deployments, by site.
//!
//! What it does not know: peaks (that is what headroom is for), readers of the stores, `fleetlog presence` and `verify`,
//! rebuilds beside the live version, and anything about servers that nobody measured. [`Figures::estimated`] names the guesses.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

mod deployment;
mod figures;
mod kafka;
mod load;
mod page;
mod plan;
mod quantity;
mod redis;
mod report;
mod sql;
#[cfg(test)]
mod tests;
mod warnings;

pub use deployment::{Deployment, Fleetlog, PROJECTIONS, ProjectionLoad, Rates};
pub use figures::{Basis, Figure, Figures, FiguresError};
pub use kafka::{Kafka, TopicLoad};
pub use load::{EVENTS_PER_S_MAX, Load, LoadError};
pub use page::{PAGE_BEGIN, PAGE_END, example, made_part};
pub use plan::{Brokers, Limit, Plan, PlanError};
pub use redis::Redis;
pub use report::Line;
pub use sql::Sql;
pub use warnings::Warning;

pub(crate) const SECONDS_PER_DAY: f64 = 86_400.0;
