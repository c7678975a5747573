//! One truth for [`Sink`]: what every implementation has to do, as functions that each implementation's tests call.
//!
//! A sink crate implements [`Harness`] over its store and lists the checks with
//! [`conformance_tests!`](crate::conformance_tests):
//!
//! ```ignore
//! fleetlog_projection::conformance_tests! { RedisHarness::start().await =>
//!     applied_once, the_same_again_is_already_applied, // …
//! }
//! ```
//! A check needs what its documentation names; a harness leaves out the ones its store cannot have (rows for Redis,
//! scripts for SQL). Every check makes lanes of its own, so a harness may be fresh for each or shared.

mod chain;
mod faults;
mod fixture;
mod ledger;
mod parts;
mod sizes;

#[cfg(test)]
mod broken_tests;
#[cfg(test)]
mod memory_tests;

pub use chain::*;
pub use faults::*;
pub use ledger::*;
pub use parts::*;
pub use sizes::*;

use std::collections::BTreeMap;

use crate::{LaneId, Sink, UnitOfWork};

/// What a harness's sink writes.
pub type WriteOf<H> = <<H as Harness>::Sink as Sink>::Write;

/// How the suite reaches a store from outside: makes writes, reads back what readers see, and breaks things.
///
/// The methods from [`Self::interrupt`] on are capabilities: their defaults panic, so a check that needs one a
/// harness does not have fails by saying so.
pub trait Harness: Send + Sync {
    /// The sink under test.
    type Sink: Sink<Write: PartialEq>;

    /// Whether the sink takes entities (states with readable parts).
    const STORES_ENTITIES: bool;
    /// Whether the sink takes rows.
    const STORES_ROWS: bool;

    /// Opens the store once more, as another process would: own connection, own memory.
    fn open(&self) -> impl Future<Output = Self::Sink> + Send;

    /// A lane never used before in this store; its topic's name is used in homes.
    fn lane(&self) -> LaneId;

    /// The readable parts of the entity at `home` when it shows `value`, places in lists included. Asked only if
    /// [`Self::STORES_ENTITIES`].
    fn entity_writes(&self, home: &str, value: i64) -> Vec<WriteOf<Self>> {
        lacks(&format!("entities ({home}, {value})"))
    }

    /// What a reader of the entity at `home` sees; none if nothing lives there. Fails if its readable parts (fields,
    /// places in lists) disagree with each other. Asked only if [`Self::STORES_ENTITIES`].
    fn shown(&self, home: &str) -> impl Future<Output = Option<i64>> + Send {
        async move { lacks(home) }
    }

    /// A row of the event at `offset` that shows `value`. Asked only if [`Self::STORES_ROWS`].
    fn row(&self, lane: &LaneId, offset: i64, value: i64) -> WriteOf<Self> {
        lacks(&format!("rows ({lane}, {offset}, {value})"))
    }

    /// A row that the store refuses, such as a text with a NUL character. Asked only if [`Self::STORES_ROWS`].
    fn refused_row(&self, lane: &LaneId, offset: i64) -> WriteOf<Self> {
        lacks(&format!("rows ({lane}, {offset})"))
    }

    /// All rows of the lane as (offset, value), by offset; one that is stored twice is there twice. Asked only if
    /// [`Self::STORES_ROWS`].
    fn rows(&self, lane: &LaneId) -> impl Future<Output = Vec<(i64, i64)>> + Send {
        let lane = lane.to_string();
        async move { lacks(&format!("rows of {lane}")) }
    }

    /// The lane's ledger: offset → reason label.
    fn ledger(&self, lane: &LaneId) -> impl Future<Output = BTreeMap<i64, String>> + Send;

    /// Carries out the first `steps` atomic steps of the unit's commit, and then its process dies: nothing more
    /// reaches the store, no reply comes back. Returns whether steps were left to do. SQL: a commit is one step.
    fn interrupt(&self, unit: &UnitOfWork<WriteOf<Self>>, steps: usize) -> impl Future<Output = bool> + Send {
        let leaves = unit.leaves;
        async move { lacks(&format!("interrupt (of {leaves} after {steps} steps)")) }
    }

    /// Remembers what the store holds now, for [`Self::lose_tail`].
    fn snapshot(&self) -> impl Future<Output = ()> + Send {
        async { lacks("snapshot") }
    }

    /// The store loses everything written since [`Self::snapshot`], as after a crash without a synced log; returns
    /// when it answers again.
    fn lose_tail(&self) -> impl Future<Output = ()> + Send {
        async { lacks("lose_tail") }
    }

    /// Restarts the server, keeping its data; returns when it answers again.
    fn restart(&self) -> impl Future<Output = ()> + Send {
        async { lacks("restart") }
    }

    /// Makes the store forget its loaded scripts (Redis: `SCRIPT FLUSH`).
    fn drop_scripts(&self) -> impl Future<Output = ()> + Send {
        async { lacks("drop_scripts") }
    }

    /// Removes what lives at `home`, as a person or an expiry does.
    fn remove(&self, home: &str) -> impl Future<Output = ()> + Send {
        let home = home.to_owned();
        async move { lacks(&format!("remove (of {home})")) }
    }

    /// Puts a value of another type at `home`.
    fn occupy(&self, home: &str) -> impl Future<Output = ()> + Send {
        let home = home.to_owned();
        async move { lacks(&format!("occupy (of {home})")) }
    }
}

fn lacks(capability: &str) -> ! {
    panic!("this harness has no {capability}: implement it, or leave the check out of its list")
}

/// Makes one `#[tokio::test]` of each named check, with a harness of its own made by the expression.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr => $($check:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let harness = $harness;
                $crate::conformance::$check(&harness).await;
            }
        )+
    };
}
