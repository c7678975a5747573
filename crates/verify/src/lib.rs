//! An independent recount: reads the log again, folds and maps it, and compares with what the stores hold.
//!
//! It shares with the sinks nothing of the way data came in: own reads of Redis and SQL, own loop over the log, own
//! form of the duplicate rule. It shares with the running system what defines right: the projectors.
//!
//! What it says: hot state and ledgers are the fold of the log, entity by entity at each entity's own version, so that it
//! can be asked while the fleet runs; history is one row per event, by count and hash per range of offsets, and row by row
//! where these differ. What it cannot say: where a log with retention begins too late to tell, it says that instead.
//!
//! With the same means [`explain`] says which event gave a field of an entity its value.

mod entity;
mod error;
mod explain;
mod fold;
mod history_store;
mod hot_store;
mod judged;
mod kafka_log;
mod ledger;
mod ledger_store;
mod log;
mod map;
mod progress;
mod report;
mod row;
mod settled;
mod states;

pub use error::VerifyError;
pub use explain::{Begin, Change, Explanation, Question, Readable, Stored, Verdict, explain};
pub use fold::verify_fold;
pub use history_store::HistoryStore;
pub use hot_store::{HotStore, HotStoreSettings};
pub use kafka_log::KafkaLog;
pub use ledger::verify_ledger;
pub use log::{Batches, Log, Range, Topic};
pub use map::verify_map;
pub use report::{Difference, Kind, LaneRange, Report, VerifySettings};
