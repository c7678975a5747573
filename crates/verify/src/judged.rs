//! The loop over a partition: which records are duplicates, which are no events, which are.
//!
//! The rules of DESIGN §3, written down once more and plainly, so that a mistake in the lane's own code is found.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use fleetlog_event::{Decode, EventId, EventSet, Position, Reason, Recorded, Reject, partition_of};
use fleetlog_projection::Record;

use crate::{Log, Topic, VerifyError};

/// What a record is.
pub(crate) enum Judged<S> {
    /// The same as an earlier one.
    Duplicate,
    /// No event that any projection takes.
    Rejected(Reject),
    /// An event.
    Event(Recorded<S>),
}

/// How far apart in time a duplicate may be, in ms: 10 min.
const DUPLICATE_WITHIN_MS: u64 = 600_000;

/// Which part of a partition is read.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Hands every record of the part to `each`, with its offset. Reads earlier records too, for the duplicate rule.
pub(crate) async fn each<L: Log, S: EventSet>(
    log: &L,
    part: Part<'_>,
    each: impl FnMut(i64, Judged<S>),
) -> Result<(), VerifyError> {
    each_under(log, part, None, each, |_| ()).await
}

/// The same for the records under one key only, if one is named: duplicates have the same key, so nothing else matters for
/// them. `reached` is told after each batch up to which offset the part was read.
pub(crate) async fn each_under<L: Log, S: EventSet>(
    log: &L,
    part: Part<'_>,
    key: Option<&str>,
    mut each: impl FnMut(i64, Judged<S>),
    mut reached: impl FnMut(i64),
) -> Result<(), VerifyError> {
    let Part { topic, partition, from, to } = part;
    if from >= to {
        return Ok(());
    }
    let low =
        topic.partitions.get(usize::try_from(partition).unwrap_or(usize::MAX)).map_or(0, |range| range.low);
    let begin = low.max(from - topic.dedup_span_offsets);
    let mut batches = log.read(&topic.name, partition, begin, to);
    let mut earlier = Earlier::default();
    while let Some(batch) = batches.recv().await {
        let mut batch = batch?;
        let read_to = batch.last().map(|record| record.offset + 1);
        if let Some(key) = key {
            batch.retain(|record| record.key.as_deref() == Some(key.as_bytes()));
        }
        let decode = log.prepare(&batch).await?;
        for record in &batch {
            let duplicate =
                earlier.judge(record, decode.event_id(record.value.as_deref()), topic.dedup_span_offsets);
            if record.offset < from {
                continue;
            }
            let judged = if duplicate { Judged::Duplicate } else { read(topic, partition, &decode, record) };
            each(record.offset, judged);
        }
        if let Some(offset) = read_to {
            reached(offset);
        }
    }
    Ok(())
}

/// Records that one could be a duplicate of.
#[derive(Default)]
struct Earlier {
    by_id: HashMap<EventId, Vec<(i64, i64, Option<Bytes>)>>,
    in_order: VecDeque<(i64, EventId)>,
}

impl Earlier {
    /// Record q is a duplicate if an earlier record, at most `span` offsets back, has the same key and `event_id`, and
    /// their timestamps differ by at most 10 min. A record without a readable id is none, and none is one of it.
    fn judge(&mut self, q: &Record, id: Option<EventId>, span: i64) -> bool {
        let Some(id) = id else { return false };
        while let Some(&(offset, old)) = self.in_order.front()
            && q.offset - offset > span
        {
            self.in_order.pop_front();
            if let Some(records) = self.by_id.get_mut(&old) {
                records.retain(|record| record.0 != offset);
                if records.is_empty() {
                    self.by_id.remove(&old);
                }
            }
        }
        let same_id = self.by_id.entry(id).or_default();
        let duplicate = same_id.iter().any(|(_, timestamp, key)| {
            *key == q.key && timestamp.abs_diff(q.timestamp.0) <= DUPLICATE_WITHIN_MS
        });
        same_id.push((q.offset, q.timestamp.0, q.key.clone()));
        self.in_order.push_back((q.offset, id));
        duplicate
    }
}

/// A record as an event, by the rules that hold for every projection.
fn read<S: EventSet, D: Decode>(topic: &Topic, partition: i32, decode: &D, record: &Record) -> Judged<S> {
    let Some(key) = record.key_text() else {
        return Judged::Rejected(Reject::new(Reason::NoKey, "no key, or one that is no UTF-8"));
    };
    let event: S = match decode.decode(record.value.as_deref()) {
        Ok(event) => event,
        Err(reject) => return Judged::Rejected(reject),
    };
    let entity = event.entity();
    if entity.as_str() != key {
        return Judged::Rejected(Reject::new(
            Reason::WrongKey,
            format!("key `{key}`, event about `{entity}`"),
        ));
    }
    let belongs = partition_of(key.as_bytes(), topic.count());
    if belongs != partition {
        return Judged::Rejected(Reject::new(
            Reason::WrongPartition,
            format!("belongs to partition {belongs}"),
        ));
    }
    if let Err(reject) = event.validate() {
        return Judged::Rejected(reject);
    }
    let position = Position { log: topic.log, partition, offset: record.offset };
    Judged::Event(Recorded { position, recorded_at: record.timestamp, key: entity, event })
}
