//! Between the poll thread and a lane: records without a gap, counted in bytes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use fleetlog_projection::{
    Batch, Record,
    mutant::{Mutant, on},
};
use tokio::sync::{Notify, oneshot};

use super::{CommitError, LaneAt};

/// What lanes ask of the poll thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// A lane named a place to read from (in its buffer): look.
    Wake,
    /// Prove that the lane is still ours: commit this offset and wait.
    Prove(LaneAt, Incarnation, i64, oneshot::Sender<Result<(), CommitError>>),
}

/// Tells apart lanes that had the same place one after another.
pub(crate) type Incarnation = u64;

/// What a lane finds when it looks.
#[derive(Debug)]
pub(crate) enum Taking {
    /// Records, or a move over markers.
    Batch(Batch),
    /// Kafka said that an offset does not exist; it may be this lane's.
    OutOfRange,
}

/// Wakes the poll thread when a full lane frees space.
#[derive(Debug, Default)]
pub(crate) struct Space {
    waiting: AtomicBool,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Space {
    /// Waits until `free` holds or the time is over; says whether it holds.
    pub(crate) fn wait(&self, timeout: Duration, free: impl Fn() -> bool) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(true, Ordering::SeqCst);
        let waited = self.freed.wait_timeout_while(guard, timeout, |()| !free());
        self.waiting.store(false, Ordering::SeqCst);
        drop(waited);
        free()
    }

    fn notify(&self) {
        if self.waiting.load(Ordering::SeqCst) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.freed.notify_all();
        }
    }
}

/// What was read of a lane and not taken yet.
#[derive(Debug)]
struct Unread {
    /// The lane named a place to read from that the intake has not gone to yet: what still arrives is stale.
    requested: Option<i64>,
    begin: i64,
    next: i64,
    records: VecDeque<Record>,
    /// Nothing lies behind what was read, as far as the intake knows.
    at_end: bool,
    out_of_range: bool,
}

/// The buffer of one lane.
#[derive(Debug)]
pub(crate) struct LaneBuffer {
    unread: Mutex<Unread>,
    readable: Notify,
    /// Bytes buffered.
    held_bytes: AtomicUsize,
    acknowledged: AtomicI64,
    headers_from: AtomicI64,
    space: Arc<Space>,
}

impl LaneBuffer {
    pub(crate) fn new(space: Arc<Space>) -> Self {
        let unread = Unread {
            requested: None,
            begin: -1,
            next: -1,
            records: VecDeque::new(),
            at_end: false,
            out_of_range: false,
        };
        Self {
            unread: Mutex::new(unread),
            readable: Notify::new(),
            held_bytes: AtomicUsize::new(0),
            acknowledged: AtomicI64::new(-1),
            headers_from: AtomicI64::new(i64::MIN),
            space,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds records. Dropped while the lane waits to be read from elsewhere, and those that lie before what was read.
    pub(crate) fn push(&self, records: impl IntoIterator<Item = Record>) {
        let mut unread = self.lock();
        if unread.requested.is_some() || unread.next < 0 {
            return;
        }
        let (was_empty, mut bytes) = (unread.records.is_empty(), 0);
        for record in records {
            if record.offset >= unread.next {
                bytes += record.size_bytes();
                unread.next = record.offset + 1;
                unread.at_end = false;
                unread.records.push_back(record);
            }
        }
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_news = was_empty && !unread.records.is_empty();
        drop(unread);
        if is_news {
            self.readable.notify_one();
        }
    }

    /// Everything below `position` was delivered: the lane may move over markers.
    pub(crate) fn end(&self, position: Option<i64>) {
        let mut unread = self.lock();
        if unread.requested.is_some() || unread.next < 0 {
            return;
        }
        // None: nothing was delivered since the seek, so reading still goes on where it began.
        unread.next = unread.next.max(position.unwrap_or(unread.next));
        unread.at_end = true;
        drop(unread);
        self.readable.notify_one();
    }

    /// Kafka said that some offset does not exist.
    pub(crate) fn out_of_range(&self) {
        self.lock().out_of_range = true;
        self.readable.notify_one();
    }

    /// Where the lane wants to be read from, if the intake has yet to go there.
    pub(crate) fn requested(&self) -> Option<i64> {
        self.lock().requested
    }

    /// The intake reads from `offset` now.
    pub(crate) fn begin(&self, offset: i64) {
        let mut unread = self.lock();
        if unread.requested == Some(offset) {
            unread.requested = None;
            unread.begin = offset;
            unread.next = offset;
            unread.at_end = false;
        }
    }

    /// Where reading goes on; none while it is not being read.
    pub(crate) fn next(&self) -> Option<i64> {
        let unread = self.lock();
        (unread.requested.is_none() && unread.next >= 0).then_some(unread.next)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// The last progress the lane reported; -1 before the first.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// From where on the lane wants headers.
    pub(crate) fn headers_from(&self) -> i64 {
        self.headers_from.load(Ordering::Relaxed)
    }

    fn request(&self, offset: i64) {
        let mut unread = self.lock();
        if on(Mutant::StalePrefetch) && unread.next >= 0 {
            return;
        }
        unread.requested = Some(offset);
        let dropped: usize = unread.records.drain(..).map(|record| record.size_bytes()).sum();
        drop(unread);
        self.release(dropped);
    }

    fn release(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.space.notify();
    }

    /// Takes what is there, up to the limits; `cursor` is where the lane is, so that a move over markers shows.
    fn try_take(&self, cursor: i64, events_max: usize, bytes_max: usize) -> Option<Taking> {
        let mut unread = self.lock();
        if std::mem::take(&mut unread.out_of_range) {
            return Some(Taking::OutOfRange);
        }
        if unread.requested.is_some() || unread.next < 0 {
            return None;
        }
        if unread.records.is_empty() {
            let (begin, next) = (unread.begin, unread.next);
            unread.begin = next;
            let moved = next > cursor || begin != cursor;
            return moved.then(|| Taking::Batch(Batch { begin, records: Vec::new(), next }));
        }
        let mut bytes = 0;
        // At least one: a record larger than its share goes alone.
        let fits = |record: &&Record| {
            bytes += record.size_bytes();
            bytes <= bytes_max
        };
        let count = unread.records.iter().take(events_max).take_while(fits).count().max(1);
        let records: Vec<Record> = unread.records.drain(..count).collect();
        let begin = unread.begin;
        let last = records.last().map_or(begin, |record| record.offset + 1);
        let next = if unread.records.is_empty() { unread.next } else { last };
        unread.begin = next;
        drop(unread);
        self.release(records.iter().map(Record::size_bytes).sum());
        Some(Taking::Batch(Batch { begin, records, next }))
    }
}

/// A lane's end of its buffer.
#[derive(Debug)]
pub(crate) struct LaneFeed {
    at: LaneAt,
    incarnation: Incarnation,
    buffer: Arc<LaneBuffer>,
    commands: Sender<Command>,
    bytes_max: Arc<AtomicUsize>,
}

impl LaneFeed {
    pub(crate) fn new(
        at: LaneAt,
        incarnation: Incarnation,
        buffer: Arc<LaneBuffer>,
        commands: Sender<Command>,
        bytes_max: Arc<AtomicUsize>,
    ) -> Self {
        Self { at, incarnation, buffer, commands, bytes_max }
    }

    /// What the lane may hold, in bytes; changes as lanes come and go.
    pub(crate) fn lane_bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Waits for something to take. Cancel-safe: nothing is taken before it is returned.
    pub(crate) async fn take(&self, cursor: i64, events_max: usize, bytes_max: usize) -> Taking {
        loop {
            let readable = self.buffer.readable.notified();
            if let Some(taking) = self.buffer.try_take(cursor, events_max, bytes_max) {
                return taking;
            }
            readable.await;
        }
    }

    /// Throws away what is buffered and asks to be read from `offset`.
    pub(crate) fn read_from(&self, offset: i64) {
        self.buffer.request(offset);
        // Nobody listens any more only when the poll thread has ended, and then this lane is being stopped.
        let _ = self.commands.send(Command::Wake);
    }

    /// From where on headers are to be read. For certain only of what is asked for ([`Self::read_from`]) after this.
    pub(crate) fn read_headers_from(&self, offset: i64) {
        self.buffer.headers_from.store(offset, Ordering::Relaxed);
    }

    /// Awaits an offset commit of this member's generation.
    ///
    /// # Errors
    /// When it was not taken.
    pub(crate) async fn prove_ownership(&self, offset: i64) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        let gone = || CommitError::NotOurs("the poll thread has ended".into());
        self.commands.send(Command::Prove(self.at, self.incarnation, offset, reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Reports progress, for lag tools.
    pub(crate) fn acknowledge(&self, next: i64) {
        self.buffer.acknowledged.store(next, Ordering::Relaxed);
    }

    /// Bytes buffered now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.buffer.held_bytes()
    }

    /// Whether the log was read to its end, as far as is known.
    pub(crate) fn at_end(&self) -> bool {
        self.buffer.lock().at_end
    }
}

#[cfg(test)]
#[path = "buffer/tests.rs"]
mod tests;
