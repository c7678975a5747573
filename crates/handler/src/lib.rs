//! Handlers: consumers whose effects lie outside the sinks, such as a webhook. What an author writes, and the rules of
//! retrying as values: no I/O, no clock.
//!
//! ```text
//! topic ─► Window ─► Circuit ─► Handler::handle ─► fate ─┬─► done
//!                                                        ├─► a retry tier, and round again
//!                                                        ├─► held, until the circuit lets calls through
//!                                                        └─► dead letter
//! ```
//!
//! Guarantees, each kept by one type:
//! - events of one key are begun one after the other, in the order of the log, and no more than `in_flight_max` records of a
//!   partition are begun behind what its group has committed: so many are handled again after a crash ([`Window`]);
//! - a retried event is never called before its time ([`RetryPolicy`], [`BrokerClock`]);
//! - an endpoint that is down is left alone, and events that meet it then are not used up by it ([`Circuit`], [`fate`]).
//!
//! What they do not: an event that waits for its retry is overtaken by later ones of its key. [`Call::is_outdated`] tells.

mod circuit;
mod dispatcher;
mod due;
mod fate;
#[cfg(any(test, feature = "testing"))]
pub mod given;
mod handler;
mod journey;
mod lane;
mod newest;
mod policy;
mod window;

pub use circuit::{Change, Circuit, CircuitSettings, Outcome, Passage, Ticket, Verdict};
pub use dispatcher::{Action, At, Destination, Dispatcher, DispatcherSettings, LaneId, Prepared};
pub use due::BrokerClock;
pub use fate::{Fate, fate};
pub use handler::{Call, Handler, HandlerError};
pub use journey::{Journey, NoJourney, is_of_journeys, tells_time, time_header};
pub use lane::{Incoming, LaneKind, Origin};
pub use policy::{Next, Place, PolicyError, RetryPolicy};
pub use window::Window;
