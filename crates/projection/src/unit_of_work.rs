//! What one step of a lane writes, all or nothing.

use fleetlog_event::{EntityKey, LogId, Reject, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::{EntryChange, LaneId, Link, Progress, Record};

/// How far an entity's state is: it holds the effect of every event below `next` that was not set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The log it was folded from.
    pub log: LogId,
    /// The partition of its events.
    pub partition: i32,
    /// One past the last event applied: what lies below is *covered*.
    pub next: i64,
    /// How often it was folded anew with an event put into its place (redrive, repair).
    pub revision: u32,
}

/// An entity's new state with everything that people read of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntityChange<W> {
    /// The entity.
    pub key: EntityKey,
    /// Where its state lives in the sink, such as `unit:s504.u1`.
    pub home: String,
    /// The version that `state` has.
    pub version: Version,
    /// The exact state, as JSON.
    pub state: Vec<u8>,
    /// The readable parts: all of them.
    pub writes: Vec<W>,
    /// What the store has of the entity already.
    pub base: Base,
}

impl<W: Clone> EntityChange<W> {
    /// What a store has after this write that had `before`: what is said to be unchanged as it was there.
    #[must_use]
    pub fn onto(&self, before: Option<&Self>) -> Self {
        let mut after = Self { base: Base::Unknown, ..self.clone() };
        if let (Base::Written(unchanged), Some(before)) = (&self.base, before) {
            let places = after.writes.iter_mut().zip(&before.writes).zip(unchanged);
            places.filter(|(_, unchanged)| **unchanged).for_each(|((now, before), _)| *now = before.clone());
        }
        after
    }
}

/// What a store has of an entity before a write of it. A store may use that to write less; the outcome is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Base {
    /// Perhaps something, written by who knows whom: everything is to be written.
    #[default]
    Unknown,
    /// Nothing: what is not there need not be taken away.
    Nothing,
    /// What this owner of the lane wrote on its chain: for each of the writes, whether it is as it was. A store that
    /// finds nothing all the same (somebody deleted it, or it expired) is to write everything.
    Written(Vec<bool>),
}

/// A row that an event became.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowChange<W> {
    /// The event's offset, by which a refused row is named.
    pub offset: i64,
    /// The row.
    pub write: W,
}

/// An event that this projection did not take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetAside {
    /// The record, untouched: goes to the dead-letter topic byte for byte.
    pub record: Record,
    /// Why.
    pub reject: Reject,
    /// The event's full name, if it could be read.
    pub event_type: Option<String>,
}

/// What one step writes. Taken whole or not at all (SQL), or part by part with each part on the chain (Redis):
/// set-asides first, then entities, progress last. One that changes entries of the ledger is taken whole by every store:
/// an event counts from the moment on in which its entry is closed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitOfWork<W> {
    /// Whose step it is.
    pub lane: LaneId,
    /// The link that the store must hold; none before the lane's first write.
    pub follows: Option<Link>,
    /// The link that the store holds afterwards.
    pub leaves: Link,
    /// Where the lane goes on afterwards.
    pub progress: Progress,
    /// Entities changed (fold).
    pub entities: Vec<EntityChange<W>>,
    /// Rows added (map).
    pub rows: Vec<RowChange<W>>,
    /// Events not taken: entries of the lane's ledger.
    pub set_aside: Vec<SetAside>,
    /// Entries of the ledger that a command changes; they are there.
    pub entries: Vec<EntryChange>,
    /// When the step was made, for the ledger entries (the only time in it; passed in).
    pub made_at: TimestampMs,
}
