//! What tasks tell the poll thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender},
    },
    time::Instant,
};

use fleetlog_event::{Recorded, TimestampMs};
use fleetlog_handler::{At, HandlerError, LaneId, Prepared};
use fleetlog_kafka::GroupOffsets;

use crate::{LaneAt, ports::LogFacts};

/// Something happened.
#[derive(Debug)]
pub(super) enum Told<E> {
    /// There may be something to poll, or the thread is to look around.
    Woken,
    /// It is known what records are.
    Prepared(Vec<(At, Prepared<Recorded<E>>)>),
    /// A call ended then.
    Ended(At, Result<(), HandlerError>, Instant),
    /// A record was acknowledged where it went.
    Sent(At),
    /// An append to a partition of a tier was stamped with this time; it was told then.
    Heard(LaneId, TimestampMs, Instant),
    /// How the logs of lanes that are to begin look, and what the group has committed.
    Found(Vec<LaneAt>, LogFacts, GroupOffsets),
    /// Something permanent.
    Failed(String),
}

/// Tells the poll thread; clones tell the same.
#[derive(Debug)]
pub(super) struct Teller<E> {
    sender: Sender<Told<E>>,
    /// It was woken, and has not looked yet: once is enough.
    is_woken: Arc<AtomicBool>,
}

impl<E> Clone for Teller<E> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), is_woken: Arc::clone(&self.is_woken) }
    }
}

/// A teller, and what hears it.
pub(super) fn channel<E>() -> (Teller<E>, Receiver<Told<E>>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    (Teller { sender, is_woken: Arc::default() }, receiver)
}

impl<E> Teller<E> {
    /// Nobody hears any more where the thread has ended; then it is of no account.
    pub(super) fn tell(&self, told: Told<E>) {
        drop(self.sender.send(told));
    }

    pub(super) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.tell(Told::Woken);
        }
    }

    /// The poll thread looks around now: whatever wakes it from here on is told anew.
    pub(super) fn looks(&self) {
        self.is_woken.store(false, Ordering::Release);
    }
}
