//! The same event sent twice counts once: a function of the log alone.
//!
//! Record q is a duplicate if an earlier record of its partition, at most N offsets back (dropped and set-aside ones
//! included), has the same key and `event_id` and their timestamps differ by at most 10 minutes (DESIGN §3).

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{Hash, Hasher},
};

use fleetlog_event::EventId;
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128;

use crate::Record;

/// How far apart the timestamps of a record and its duplicate may be, in ms.
pub(crate) const TIMESTAMPS_APART_MS_MAX: i64 = 10 * 60 * 1000;

/// The records of a partition that a duplicate could be a duplicate of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupWindow {
    span_offsets: i64,
    ring: VecDeque<(EventId, i64)>,
    by_id: HashMap<EventId, SmallVec<[Seen; 1]>, RandomState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    offset: i64,
    timestamp_ms: i64,
    key_hash: u128,
}

impl Hash for DedupWindow {
    /// `by_id` holds what the ring holds.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.span_offsets.hash(state);
        self.ring.hash(state);
    }
}

impl DedupWindow {
    /// An empty window that reaches `span_offsets` back.
    #[must_use]
    pub fn new(span_offsets: i64) -> Self {
        Self { span_offsets, ring: VecDeque::new(), by_id: HashMap::default() }
    }

    /// How far it reaches back, in offsets: where a lane has to begin to read to fill it again.
    #[must_use]
    pub fn span_offsets(&self) -> i64 {
        self.span_offsets
    }

    /// Forgets everything, for a seek.
    pub fn clear(&mut self) {
        self.ring.clear();
        self.by_id.clear();
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
                offset: record.offset,
                timestamp_ms: record.timestamp.0,
                key_hash: xxh3_128(record.key.as_deref().unwrap_or_default()),
            };
            let span = self.span_offsets;
            let earlier = self.by_id.entry(event_id).or_default();
            duplicate.push(earlier.iter().any(|earlier| is_duplicate(&seen, earlier, span)));
            earlier.push(seen);
            self.ring.push_back((event_id, record.offset));
            self.forget(record.offset);
        }
        duplicate
    }

    /// Forgets what no record after `newest` could be a duplicate of.
    fn forget(&mut self, newest: i64) {
        while let Some((event_id, offset)) = self.ring.front().copied()
            && newest + 1 - offset > self.span_offsets
        {
            self.ring.pop_front();
            if let Entry::Occupied(mut entries) = self.by_id.entry(event_id) {
                entries.get_mut().retain(|seen| seen.offset != offset);
                if entries.get().is_empty() {
                    entries.remove();
                }
            }
        }
    }
}

fn is_duplicate(record: &Seen, earlier: &Seen, span_offsets: i64) -> bool {
    record.offset - earlier.offset <= span_offsets
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
                    // A seek: the window is filled again from the log, span offsets back.
                    window.clear();
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
}
