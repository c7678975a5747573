//! The core as a model: every order in which a few faults can strike a few events is explored.
//!
//! **What runs here is production's code**: where a lane begins, what it takes of a batch, what it writes with which
//! piece of a round and when it is fenced ([`LaneCore`](fleetlog_projection::LaneCore), with its duplicate window and
//! chain), what becomes of a batch ([`Fold`](fleetlog_projection::Fold), [`Map`](fleetlog_projection::Map)), how a
//! commit is cut into parts and what a sink makes of the replies ([`parts`](fleetlog_projection::parts)), and how a
//! store judges a part ([`World`](fleetlog_projection::memory::World), by [`judge`](fleetlog_projection::judge)).
//!
//! **What is the model's own** is what lies between: the order of calls in a step (as `engine/src/lane/mod.rs` and
//! `round.rs` have it), a group of two owners, calls under way, and the faults. The chaos tests are about that part:
//! they run the real thing with fail points.
//!
//! What may happen, at any moment and as often as [`Faults`] allows: an owner is killed; a reply is lost or late, so
//! that the call is sent again while the first may still arrive; the partition goes to the other owner (which runs
//! other code) while the old one knows nothing of it; the store falls back to an earlier moment, also inside a commit
//! or between the pieces of a round.
//!
//! Commands: events that were set aside are redriven, each command as one action with the write it sends. Skip and folding anew
//! without an event are not here.

mod act;
mod action;
mod code;
mod command;
mod flight;
mod owner;
mod properties;
mod report;
mod scene;
mod system;

pub use action::Action;
pub use properties::Finding;
pub use report::{Explored, explore, explore_nearest};
pub use scene::{Faults, Happening, Scene, StoreKind};
pub use system::{State, System};
