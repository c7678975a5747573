//! Read models as pure functions of the log, the chain of links, and the sink they land in.
//!
//! No I/O, no clock, no async except in the signatures of [`Sink`]. A *projector* ([`MapProjector`], [`FoldProjector`],
//! [`RecordProjector`]) is what an author writes; a [`Projection`] is what a lane drives; a [`UnitOfWork`] is what a step hands to a [`Sink`].

pub mod chain;
mod command;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod dedup;
mod fold;
#[cfg(any(test, feature = "testing"))]
pub mod given;
mod hot;
mod lane;
mod ledger;
mod map;
pub mod memory;
pub mod mutant;
pub mod parts;
mod progress;
mod projection;
mod projector;
mod record;
mod record_map;
mod row;
mod sink;
mod unit_of_work;
mod weight;

pub use chain::{Chain, Link, Verdict, judge};
pub use command::{Act, Command, InboxRecord, NotACommand, inbox_name};
pub use dedup::DedupWindow;
pub use fold::{Fold, FoldCache, FoldPending, Known};
pub use hot::HotWrite;
pub use lane::{Admission, Batch, Due, LaneCore, LogLost, LogNow, Taken, Writes};
pub use ledger::{EntryChange, EntryState, LedgerEntry};
pub use map::Map;
pub use memory::MemorySink;
pub use progress::{LaneId, LastRecord, Progress};
pub use projection::{BadState, Grown, LaneScope, Projected, Projection, Rulings, key_text_of, read_event};
pub use projector::{FoldProjector, MapProjector};
pub use record::{Headers, Record};
pub use record_map::{RecordMap, RecordPlace, RecordProjector};
pub use row::{Column, CopyEncoder, EntityRow, FOLD_COLUMNS, HistoryRow, PlacedRow, Table};
pub use sink::{Commit, Fault, RefusedAt, Sink, SinkError, Stored, StoredState};
pub use unit_of_work::{Base, EntityChange, RowChange, SetAside, UnitOfWork, Version};
