//! The handler `task-watch`: a task that nothing moves for longer than its type allows becomes `Failed(timeout)`, or is told of
//! by `Stalled`, as the settings say. For operators: `docs/task-watch.md`.
//!
//! ```text
//! Created ─► call ─► hot state ─► decide ─┬─► not yet: a retry tier, and round again
//!                                         ├─► over: done
//!                                         └─► due: Failed (done), or Stalled (and round again)
//! ```
//!
//! It is called for `Created` alone, so of each open task one record waits in the retry tiers, however many events it has; and as
//! those are topics, a deadline survives restarts.
//!
//! Guarantees:
//! - **Never early**: a task is due once its last event is older than its type allows, by the times at which fleetlog took
//!   events in. Clocks of devices play no part.
//! - **Never because hot state lags**: before a task is called silent, hot state has to show all that lay on its partition when
//!   the call began ([`HotTasks::look`]).
//! - **Once a standstill**: what is said can be read from hot state, which is looked at before anything is said; said twice by
//!   a crash in between it has the same id, and counts once.
//! - **Nothing is used up** by hot state that is away or behind: the task is looked at again.
//!
//! What it cannot: know of an event that is on its way at that very moment.

mod decision;
mod rules;
mod shown;
mod task_watch;

pub use decision::{Decision, Look, Watched, decide};
pub use rules::{Policy, Rules};
pub use shown::{Shown, Standing, Unreadable};
pub use task_watch::{Clock, HotTasks, ID, Say, TaskWatch, Unknowable};
