//! The same event sent twice counts once: a function of the log alone.
//!
//! Record q is a duplicate if an earlier record of its partition, at most N offsets back (dropped and set-aside ones
//! included), has the same key and `event_id` and their timestamps differ by at most 10 minutes (DESIGN §3).

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash, Hasher},
};

use fleetlog_event::EventId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::Record;

/// How far apart the timestamps of a record and its duplicate may be, in ms.
pub(crate) const TIMESTAMPS_APART_MS_MAX: i64 = 10 * 60 * 1000;

/// The records of a partition that a duplicate could be a duplicate of: 56 bytes each at most, since every lane keeps as
/// many as its topic's window is long.
#[derive(Clone)]
pub struct DedupWindow {
    span_offsets: i64,
    ring: VecDeque<Seen>,
    /// The number of the ring's first record; numbers go on by one a record, and round at 2^32.
    first: u32,
    /// The numbers of the ring's records, by event id.
    by_id: HashTable<u32>,
    hasher: RandomState,
}

/// What is remembered of a record. 64 bits of its key's hash are enough: they are compared only where event ids are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    event_id: EventId,
    key_hash: u64,
    offset: i64,
    timestamp_ms: i64,
}

/// The table only finds again what the ring holds.
impl PartialEq for DedupWindow {
    fn eq(&self, other: &Self) -> bool {
        self.span_offsets == other.span_offsets && self.ring == other.ring
    }
}

impl Eq for DedupWindow {}

impl Hash for DedupWindow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.span_offsets.hash(state);
        self.ring.hash(state);
    }
}

impl std::fmt::Debug for DedupWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DedupWindow")
            .field("span_offsets", &self.span_offsets)
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

impl DedupWindow {
    /// An empty window that reaches `span_offsets` back.
    #[must_use]
    pub fn new(span_offsets: i64) -> Self {
        Self {
            span_offsets,
            ring: VecDeque::new(),
            first: 0,
            by_id: HashTable::new(),
            hasher: RandomState::default(),
        }
    }

    /// How far back it reaches.
    #[must_use]
    pub fn span_offsets(&self) -> i64 {
        self.span_offsets
    }

    /// Finds the duplicates among the next records of the log, and remembers every record of them. `event_id` reads
    /// the id off a record; a record without a readable one is never a duplicate.
    ///
    /// What is remembered of a batch that is never committed must go with the window: see
    /// [`LaneCore`](crate::LaneCore), which lives from one reading of progress to the next.
    pub fn sift(&mut self, records: &[Record], event_id: impl Fn(&Record) -> Option<EventId>) -> Vec<bool> {
        let mut duplicate = Vec::with_capacity(records.len());
        for record in records {
            let Some(event_id) = event_id(record) else {
                duplicate.push(false);
                continue;
            };
            let seen = Seen {
                event_id,
                key_hash: xxh3_64(record.key.as_deref().unwrap_or_default()),
                offset: record.offset,
                timestamp_ms: record.timestamp.0,
            };
            duplicate.push(self.has_earlier(&seen));
            self.remember(seen);
            self.forget(record.offset);
        }
        duplicate
    }

    fn has_earlier(&self, seen: &Seen) -> bool {
        let is_earlier = |number: &u32| {
            let earlier = &self.ring[number.wrapping_sub(self.first) as usize];
            is_duplicate(seen, earlier, self.span_offsets)
        };
        self.by_id.find(self.hasher.hash_one(seen.event_id), is_earlier).is_some()
    }

    fn remember(&mut self, seen: Seen) {
        self.make_room();
        let Self { ring, first, by_id, hasher, .. } = self;
        // No more than 2^32 at a time: topic files allow a window of a million offsets.
        let number = first.wrapping_add(ring.len() as u32);
        ring.push_back(seen);
        let hash_of = |number: &u32| hasher.hash_one(ring[number.wrapping_sub(*first) as usize].event_id);
        by_id.insert_unique(hasher.hash_one(seen.event_id), number, hash_of);
    }

    /// The ring grows by halves and no further than the window: doubled, it would be half empty for ever.
    fn make_room(&mut self) {
        let length = self.ring.len();
        if length == self.ring.capacity() {
            let span = usize::try_from(self.span_offsets).unwrap_or(usize::MAX).saturating_add(1);
            self.ring.reserve_exact((length / 2).max(16).min(span.saturating_sub(length)).max(1));
        }
    }

    /// Forgets what no record after `newest` could be a duplicate of.
    fn forget(&mut self, newest: i64) {
        while let Some(oldest) = self.ring.front()
            && newest + 1 - oldest.offset > self.span_offsets
        {
            let hash = self.hasher.hash_one(oldest.event_id);
            if let Ok(entry) = self.by_id.find_entry(hash, |number| *number == self.first) {
                entry.remove();
            }
            self.ring.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

fn is_duplicate(record: &Seen, earlier: &Seen, span_offsets: i64) -> bool {
    record.event_id == earlier.event_id
        && record.offset - earlier.offset <= span_offsets
        && record.key_hash == earlier.key_hash
        && record.timestamp_ms.abs_diff(earlier.timestamp_ms) <= TIMESTAMPS_APART_MS_MAX.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fleetlog_event::TimestampMs;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn record(offset: i64, key: u8, id: u8, timestamp_ms: i64) -> Record {
        Record {
            offset,
            timestamp: TimestampMs(timestamp_ms),
            key: Some(Bytes::copy_from_slice(&[key])),
            value: Some(Bytes::copy_from_slice(&[id; 16])),
            headers: crate::Headers::default(),
        }
    }

    fn id(record: &Record) -> Option<EventId> {
        let bytes = record.value.as_deref()?;
        if bytes[0] == 0 { None } else { Uuid::from_slice(bytes).ok().map(EventId) }
    }

    /// The rule, word by word.
    fn by_the_rule(log: &[Record], span: i64) -> Vec<bool> {
        log.iter()
            .enumerate()
            .map(|(i, q)| {
                id(q).is_some()
                    && log[..i].iter().any(|r| {
                        q.offset - r.offset <= span
                            && q.key == r.key
                            && id(q) == id(r)
                            && (q.timestamp.0 - r.timestamp.0).abs() <= TIMESTAMPS_APART_MS_MAX
                    })
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_window_decides_as_the_rule_says_however_the_log_is_cut(
            log in prop::collection::vec((1..4_i64, 0..2_u8, 0..5_u8, 0..4_i64), 0..60),
            cuts in prop::collection::vec(1..9_usize, 60),
            span in 0..20_i64,
            forget_at in 0..60_usize,
        ) {
            let mut offset = 0;
            let log: Vec<Record> = log.into_iter().map(|(gap, key, id, tens)| {
                offset += gap;
                record(offset, key, id, tens * 6 * 60 * 1000)
            }).collect();
            let mut window = DedupWindow::new(span);
            let (mut found, mut rest, mut read) = (Vec::new(), &log[..], 0);
            for cut in cuts {
                if read >= forget_at && read > 0 {
                    // A seek: a new window is filled from the log, span offsets back.
                    window = DedupWindow::new(span);
                    let from = log[..read].partition_point(|r| r.offset < log[read - 1].offset + 1 - span);
                    let _ = window.sift(&log[from..read], id);
                }
                let (batch, tail) = rest.split_at(cut.min(rest.len()));
                found.extend(window.sift(batch, id));
                read += batch.len();
                rest = tail;
            }
            prop_assert_eq!(&found[..], &by_the_rule(&log, span)[..found.len()]);
        }
    }

    #[test]
    fn a_full_window_takes_no_more_than_it_says() {
        let span = 10_000;
        let mut window = DedupWindow::new(span);
        // Numbers go round in the middle of it.
        window.first = u32::MAX - 15_000;
        for n in 0..4 * span {
            let mut one = record(n, 1, 1, n);
            one.value = Some(Bytes::copy_from_slice(&u128::to_be_bytes(n as u128 + 1)));
            let again = window.sift(std::slice::from_ref(&one), |r| {
                Uuid::from_slice(r.value.as_deref()?).ok().map(EventId)
            });
            assert_eq!(again, [false], "{n}");
        }
        assert!(window.ring.len() as i64 <= span && window.by_id.len() == window.ring.len());
        let bytes = window.ring.capacity() * size_of::<Seen>() + window.by_id.allocation_size();
        let each = bytes / window.ring.len();
        assert!(each <= 56, "{each} bytes an entry");
    }
}
