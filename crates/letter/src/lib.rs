//! One dead letter as its headers tell it: what failed, where, why, and whom it failed.
//!
//! Pure, and below everything that reads dead letters: the tools (crate `dead-letters`) and the projection that indexes
//! them (crate `projections`) read a record by the same code, so that they cannot say different things of it.
//!
//! Guarantees:
//! - every record can be read: what its headers do not tell is unknown, never an error;
//! - no text of a letter has a NUL in it, which no database would store.

mod dialect;
mod headers;
mod letter;

pub use dialect::{Dialect, is_of_letters};
pub use headers::binary_or_digits;
pub use letter::{Letter, LetterId, LetterRecord, NoPlace, Origin, Place, UNKNOWN, time_text};
