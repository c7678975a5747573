//! How a projection gets from bytes to an event, without knowing the wire.

use crate::{EventId, EventSet, Reject};

/// Decodes record values. Pure and synchronous: whatever had to be looked up (schemas) was looked up before.
///
/// Implemented by the wire (crate `codec`), and by tests that want no wire.
pub trait Decode {
    /// The event in `payload`, as a member of the set `S`. Does not [`validate`](EventSet::validate) it.
    ///
    /// # Errors
    /// `empty_payload`, `unknown_framing`, `unknown_schema`, `unknown_event_type` (also for an event of another
    /// topic) or `undecodable`, with what was wrong.
    fn decode<S: EventSet>(&self, payload: Option<&[u8]>) -> Result<S, Reject>;

    /// The event's identity, read from the fixed head of the record without its schema; none where the payload is
    /// too short or of an unknown framing (such a record is never taken for a duplicate).
    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId>;
}
