//! What an author of a read model writes.

use fleetlog_event::{EntityKey, EventSet, Recorded, Reject};
use serde::{Serialize, de::DeserializeOwned};

/// One event → rows: history.
///
/// Pure: no clock, no I/O, no memory between events. Times are in [`Recorded`].
pub trait MapProjector: Send + Sync + 'static {
    /// The projection's ID: names its group, progress and keys.
    const ID: &'static str;
    /// A new version is built beside the old one and swapped in.
    const VERSION: u32 = 1;
    /// Whether its topics may well be empty. A recount that finds nothing to compare proves nothing, unless there is nothing.
    const MAY_BE_IDLE: bool = false;
    /// The events it reads.
    type Event: EventSet;
    /// What it writes.
    type Write: Send + Sync + 'static;

    /// The rows of one event.
    ///
    /// # Errors
    /// When the event cannot be taken; it is set aside, nothing is written for it.
    fn map(&self, event: &Recorded<Self::Event>, out: &mut Vec<Self::Write>) -> Result<(), Reject>;
}

/// Events of one entity → state → readable parts: hot state, ledgers.
///
/// Pure: the result depends on the entity's events in log order and on nothing else, however the log was cut into
/// batches. All events lie on one topic.
pub trait FoldProjector: Send + Sync + 'static {
    /// The projection's ID: names its group, progress and keys.
    const ID: &'static str;
    /// A new version is built beside the old one and swapped in.
    const VERSION: u32 = 1;
    /// The events it reads.
    type Event: EventSet;
    /// What it writes beside the state.
    type Write: PartialEq + Send + Sync + 'static;
    /// The exact state of one entity.
    type State: Default + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Where the entity's state lives in the sink, such as `unit:s504.u1`.
    fn home(&self, key: &EntityKey) -> String;

    /// Takes one event into the state.
    ///
    /// # Errors
    /// When the event cannot be taken: it is set aside, and what was done to `state` is undone by the caller.
    fn apply(&self, state: &mut Self::State, event: &Recorded<Self::Event>) -> Result<(), Reject>;

    /// The readable parts of a state: all of them each time, and each place (a field, a place in a list) once. What is
    /// as it was when the entity was written last is not written again.
    fn writes(&self, key: &EntityKey, state: &Self::State, out: &mut Vec<Self::Write>);
}
