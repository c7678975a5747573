//! How commands get to the lanes: the inboxes of the lanes that this process has are followed by one client, outside of
//! any consumer group. How far a lane has carried them out stands with its data (`Progress::inbox`).
//!
//! Reading begins where the lane says. If that place is gone (retention, or the topic was made anew), it begins with what
//! there is: a command that was carried out before finds its entry closed, and changes nothing.

mod kafka;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use fleetlog_projection::Record;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

pub use kafka::KafkaInbox;

use crate::Failure;

/// What may lie before a lane of its inbox; a record that is larger lies there alone.
const QUEUE_BYTES_MAX: usize = 512 << 10;
const QUEUE_RECORDS_MAX: usize = 1_000;

/// One partition of an inbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxAt {
    /// The topic's physical name.
    pub topic: String,
    /// The partition: that of the lane.
    pub partition: i32,
}

/// Where a lane's commands come from.
pub trait Inbox: Send + Sync + 'static {
    /// Follows an inbox from an offset on, until the feed is dropped. What cannot be read now is tried again.
    fn follow(&self, at: InboxAt, from: i64) -> InboxFeed;

    /// Where the last command of each of these inboxes lies, at or behind an offset. Left out is one that has none, or that
    /// does not exist.
    ///
    /// # Errors
    /// Transient if the cluster cannot be asked now.
    fn last(&self, from: BTreeMap<InboxAt, i64>) -> BoxFuture<'_, Result<BTreeMap<InboxAt, i64>, Failure>>;
}

#[derive(Debug, Default)]
struct Lying {
    records: VecDeque<Record>,
    bytes: usize,
    /// The offset after the last record taken.
    taken: i64,
}

#[derive(Debug, Default)]
struct Queue {
    lying: Mutex<Lying>,
    news: Notify,
}

impl Queue {
    fn lying(&self) -> MutexGuard<'_, Lying> {
        self.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lane's end: what lies before it of its inbox.
#[derive(Debug)]
pub struct InboxFeed(Arc<Queue>);

/// The other end.
#[derive(Debug)]
pub struct InboxWriter(Weak<Queue>);

impl InboxFeed {
    /// A feed that begins at an offset.
    #[must_use]
    pub fn new(from: i64) -> (Self, InboxWriter) {
        let queue = Arc::new(Queue::default());
        queue.lying().taken = from;
        let writer = InboxWriter(Arc::downgrade(&queue));
        (Self(queue), writer)
    }

    /// Waits until there is a record. Cancel-safe.
    pub(crate) async fn ready(&self) {
        self.until(|_| true).await;
    }

    /// Waits until one of the records is like that. Cancel-safe.
    pub(crate) async fn until(&self, like: impl Fn(&Record) -> bool + Copy) {
        loop {
            let news = self.0.news.notified();
            if self.0.lying().records.iter().any(like) {
                return;
            }
            news.await;
        }
    }

    /// Takes what there is, up to a number of records and their bytes; at least one, if there is one.
    pub(crate) fn take(&self, records_max: usize, bytes_max: usize) -> Vec<Record> {
        let mut lying = self.0.lying();
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.size_bytes();
            bytes <= bytes_max
        };
        let count = lying.records.iter().take(records_max).take_while(fits).count().max(1);
        let count = count.min(lying.records.len());
        let records: Vec<Record> = lying.records.drain(..count).collect();
        lying.bytes -= records.iter().map(Record::size_bytes).sum::<usize>();
        if let Some(last) = records.last() {
            lying.taken = last.offset + 1;
        }
        records
    }

    /// Where the next record taken lies, or will lie.
    pub(crate) fn next(&self) -> i64 {
        self.0.lying().taken
    }
}

impl InboxWriter {
    /// Adds a record. Whether there is room for another; none once nobody follows any more.
    pub fn push(&self, record: Record) -> Option<bool> {
        let queue = self.0.upgrade()?;
        let mut lying = queue.lying();
        lying.bytes += record.size_bytes();
        lying.records.push_back(record);
        let has_room = lying.bytes < QUEUE_BYTES_MAX && lying.records.len() < QUEUE_RECORDS_MAX;
        drop(lying);
        queue.news.notify_one();
        Some(has_room)
    }

    /// Whether so much was taken that more is wanted; none once nobody follows any more.
    #[must_use]
    pub fn wants_more(&self) -> Option<bool> {
        let queue = self.0.upgrade()?;
        let lying = queue.lying();
        Some(lying.bytes < QUEUE_BYTES_MAX / 2 && lying.records.len() < QUEUE_RECORDS_MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetlog_event::TimestampMs;
    use fleetlog_projection::Headers;

    use super::*;

    fn record(offset: i64, bytes: usize) -> Record {
        let value = Some(Bytes::from(vec![0; bytes]));
        Record { offset, timestamp: TimestampMs(0), key: None, value, headers: Headers::default() }
    }

    #[tokio::test]
    async fn what_is_pushed_is_taken_in_order_and_within_bounds() {
        let (feed, writer) = InboxFeed::new(7);
        assert_eq!((feed.next(), feed.take(10, 10).len()), (7, 0));
        for offset in [7, 9, 10] {
            assert_eq!(writer.push(record(offset, 1_000)), Some(true));
        }
        feed.ready().await;
        assert_eq!(feed.take(10, 2_500).iter().map(|r| r.offset).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(feed.next(), 10);
        assert_eq!(feed.take(10, 1).len(), 1, "one that is too large goes alone");
        assert_eq!(writer.push(record(11, QUEUE_BYTES_MAX)), Some(false));
        assert_eq!(writer.wants_more(), Some(false));
        assert_eq!(feed.take(1, 1).len(), 1);
        assert_eq!(writer.wants_more(), Some(true));
        drop(feed);
        assert_eq!((writer.wants_more(), writer.push(record(12, 1))), (None, None));
    }
}
