//! What is explored: a log, a kind of store, and how often each fault may strike.

/// How often each fault may strike in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// An owner is killed; the group gives the partition to it again, or it is gone.
    pub crashes: u8,
    /// Nobody waits any longer for a reply; what was sent may still arrive.
    pub timeouts: u8,
    /// The partition goes to the other owner; the old one learns of it later.
    pub rebalances: u8,
    /// The store falls back to an earlier moment.
    pub losses: u8,
}

/// How a store takes a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// As Redis: parts of at most so many entities and set-asides, all sent in one piece; the projection is a fold.
    Parts(usize),
    /// As a SQL server: one transaction; the projection is a map.
    Whole,
}

/// An event on the log. Offsets count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Which entity it is about.
    pub entity: u8,
    /// Its identity: an event with the id of an earlier one is a duplicate.
    pub id: u8,
    /// Whether the code of either owner rejects it.
    pub rejected_by: [bool; 2],
    /// Whether the store refuses its row (stores that take commits whole).
    pub is_refused: bool,
}

impl Happening {
    /// An event that everyone takes.
    #[must_use]
    pub const fn good(entity: u8, id: u8) -> Self {
        Self { entity, id, rejected_by: [false, false], is_refused: false }
    }

    /// An event that nobody takes.
    #[must_use]
    pub const fn poison(entity: u8, id: u8) -> Self {
        Self { rejected_by: [true, true], ..Self::good(entity, id) }
    }

    /// An event that the second owner's code rejects, and the first one's takes.
    #[must_use]
    pub const fn disputed(entity: u8, id: u8) -> Self {
        Self { rejected_by: [false, true], ..Self::good(entity, id) }
    }

    /// An event that the first owner's code rejects, and the second one's takes.
    #[must_use]
    pub const fn mended(entity: u8, id: u8) -> Self {
        Self { rejected_by: [true, false], ..Self::good(entity, id) }
    }

    /// An event whose row the store refuses.
    #[must_use]
    pub const fn refused(entity: u8, id: u8) -> Self {
        Self { is_refused: true, ..Self::good(entity, id) }
    }
}

/// What is explored.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Its name in tables.
    pub name: &'static str,
    /// The log.
    pub log: Vec<Happening>,
    /// Whether a transaction marker lies behind the last event.
    pub ends_with_marker: bool,
    /// The store.
    pub store: StoreKind,
    /// Whether a round goes in pieces, the state of one entity each, as where states are more than a write may carry.
    pub in_pieces: bool,
    /// Whether a lane forgets states as soon as they are written, or on their way, as one whose cache is full.
    pub forgets: bool,
    /// Most events that are taken at once, and most entities, rows and set-asides ahead of a write under way.
    pub batch_max: usize,
    /// Whether records are read ahead while a commit is under way.
    pub prefetches: bool,
    /// Whether link and states are read at one moment, as a sink has to; else the link first.
    pub reads_at_once: bool,
    /// How far back the duplicate window reaches.
    pub dedup_span_offsets: i64,
    /// Commands on the inbox: the offsets that are redriven, in this order.
    pub redrives: Vec<i64>,
    /// What may happen.
    pub faults: Faults,
    /// Whether recovery is tried from each state (see `properties::recovers`), which costs time.
    pub tries_recovery: bool,
}
