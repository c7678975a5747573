#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]
//! Dead letters of whatever wrote them: read, counted, selected, exported, discarded, sent back ([`redrive`]); and single
//! commands to lanes ([`orders`]).
//!
//! What one failed event leaves is a record on a dead-letter topic: its bytes untouched, and headers that say why. This
//! crate reads those headers in every dialect that is about ([`Letter`]), counts letters by what failed ([`Distinct`],
//! [`Stats`]), finds those that are meant ([`Selector`]), and knows what operators did to them ([`Actions`], from topic
//! `ops`). All of that is pure. [`Tools`] does it on a cluster, as library calls.
//!
//! Guarantees:
//! - every record can be read: what its headers do not tell is unknown, never an error;
//! - a letter that lies on its topic twice (a crash between publishing and committing) counts once, by (group, origin), and
//!   the newest stands for it;
//! - an action names each letter that it means, so that a state never hangs on evaluating a selection again;
//! - an export holds every byte of a record ([`RawLetter::restore`]).
//!
//! Not guaranteed: that a letter is still there. Dead-letter topics have a retention.

mod actions;
mod discard;
mod distinct;
mod export;
mod halts;
mod headers;
pub mod orders;
mod read;
pub mod redrive;
mod selector;
mod stats;
#[cfg(test)]
mod tests;
mod tools;

use fleetlog_letter as letter;

pub use actions::{Action, Actions, State};
pub use discard::{ActionHead, DiscardRequest, discarded};
pub use distinct::Distinct;
pub use export::{ExportLine, NoBase64, RawHeader, RawLetter};
pub use halts::{HaltState, Halts};
pub use headers::readable;
pub use letter::{Dialect, Letter, LetterId, NoPlace, Origin, Place, UNKNOWN};
pub use read::ReadLetter;
pub use selector::{Inside, Selector, SelectorError};
pub use stats::Stats;
pub use tools::{Exported, Found, HaltsReader, Index, Shown, StateFilter, ToolError, Tools};
