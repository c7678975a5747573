//! What the handlers do.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use fleetlog_event::robot::RobotEvent;
use fleetlog_handler::{Call, Handler, HandlerError};
use tokio_util::sync::CancellationToken;

/// How many calls were done.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<AtomicU64>);

impl Calls {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Works for so long on each event, and asks for the end once all of them are done.
pub(crate) struct Works {
    id: String,
    work: Duration,
    events: u64,
    calls: Calls,
    all_done: CancellationToken,
}

impl Works {
    pub(crate) fn new(id: String, work: Duration, events: u64, all_done: CancellationToken) -> Self {
        Self { id, work, events, calls: Calls::default(), all_done }
    }

    pub(crate) fn calls(&self) -> Calls {
        self.calls.clone()
    }
}

impl Handler for Works {
    type Event = RobotEvent;

    fn id(&self) -> &str {
        &self.id
    }

    async fn handle(&self, _: &Call<RobotEvent>) -> Result<(), HandlerError> {
        if !self.work.is_zero() {
            tokio::time::sleep(self.work).await;
        }
        if self.calls.0.fetch_add(1, Ordering::Relaxed) + 1 == self.events {
            self.all_done.cancel();
        }
        Ok(())
    }
}

/// Fails the first call for each event. Each call is a line of a file: the event's id, which call it is, and when it was made, in
/// microseconds since 1970. It is with the system when the call ends, so that a kill loses none.
pub(crate) struct Stumbles {
    id: String,
    calls: Mutex<File>,
}

impl Stumbles {
    pub(crate) fn new(id: String, calls: &Path) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(calls);
        Ok(Self { id, calls: Mutex::new(file.with_context(|| calls.display().to_string())?) })
    }
}

impl Handler for Stumbles {
    type Event = RobotEvent;

    fn id(&self) -> &str {
        &self.id
    }

    async fn handle(&self, call: &Call<RobotEvent>) -> Result<(), HandlerError> {
        // The broker, on the same machine, stamps by the same clock.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let line = format!("{} {} {now}\n", call.idempotence_key().0, call.attempt);
        let written = self.calls.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        written.map_err(|error| HandlerError::Stop(error.to_string()))?;
        if call.attempt == 1 { Err(HandlerError::Retry("asked to".to_owned())) } else { Ok(()) }
    }
}
