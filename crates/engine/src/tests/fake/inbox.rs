//! Inboxes in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use fleetlog_event::TimestampMs;
use fleetlog_projection::{Command, InboxRecord, Record};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{Failure, Inbox, InboxAt, InboxFeed, InboxWriter};

#[derive(Default)]
struct Lying {
    records: Vec<Record>,
    writer: Option<InboxWriter>,
}

impl Lying {
    /// What is read from there on; all of it, if it ends before.
    fn from(&self, offset: i64) -> impl Iterator<Item = &Record> {
        let is_beyond = usize::try_from(offset).is_ok_and(|offset| offset > self.records.len());
        self.records.iter().filter(move |record| is_beyond || record.offset >= offset)
    }
}

/// The inboxes of a cluster; clones share them.
#[derive(Clone, Default)]
pub(in crate::tests) struct FakeInbox(Arc<Mutex<BTreeMap<i32, Lying>>>);

impl FakeInbox {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<i32, Lying>> {
        self.0.lock().expect("not poisoned")
    }

    /// Puts a command on a lane's inbox; where it lies.
    pub(in crate::tests) fn send(&self, partition: i32, command: &Command) -> i64 {
        self.send_raw(partition, &command.write())
    }

    /// Makes the topic anew: what lay there is gone.
    pub(in crate::tests) fn make_anew(&self) {
        self.partitions().clear();
    }

    pub(in crate::tests) fn send_raw(&self, partition: i32, record: &InboxRecord) -> i64 {
        let mut partitions = self.partitions();
        let lying = partitions.entry(partition).or_default();
        let offset = i64::try_from(lying.records.len()).expect("few");
        let record = record.at(offset, TimestampMs(0));
        lying.records.push(record.clone());
        if let Some(writer) = &lying.writer {
            let _ = writer.push(record);
        }
        offset
    }
}

impl Inbox for FakeInbox {
    fn follow(&self, at: InboxAt, from: i64) -> InboxFeed {
        let (feed, writer) = InboxFeed::new(from);
        let mut partitions = self.partitions();
        let lying = partitions.entry(at.partition).or_default();
        for record in lying.from(from) {
            let _ = writer.push(record.clone());
        }
        lying.writer = Some(writer);
        feed
    }

    fn last(&self, from: BTreeMap<InboxAt, i64>) -> BoxFuture<'_, Result<BTreeMap<InboxAt, i64>, Failure>> {
        let partitions = self.partitions();
        let last = from.into_iter().filter_map(|(at, from)| {
            let last = partitions.get(&at.partition)?.from(from).last()?.offset;
            Some((at, last))
        });
        std::future::ready(Ok(last.collect())).boxed()
    }
}
