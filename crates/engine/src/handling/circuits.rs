//! What topic `ops` is told of a handler's circuit: one change after the other, by a task of its own, so that a broker that is away
//! holds up nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fleetlog_event::ops::{CircuitChanged, CircuitState};
use fleetlog_projection::Fault;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tracing::warn;

use crate::{EngineConfig, halting::ops_meta, ports::Circuits};

/// Longest text of why a circuit opened, in characters.
const DETAIL_CHARS_MAX: usize = 300;
/// How long the end of a run waits for what is still to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The circuit of one handler in this process, as it was told last.
#[derive(Debug, Default)]
pub(super) struct Circuitry {
    is_open: AtomicBool,
    /// There is none where nobody wants to know.
    changes: Mutex<Option<UnboundedSender<CircuitChanged>>>,
}

/// Whose circuit it is.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) group: &'a str,
    pub(super) handler: &'a str,
    pub(super) config: &'a EngineConfig,
}

impl Circuitry {
    /// Begins to write down what is told; over once [`end`](Self::end) was called and all is written.
    pub(super) fn write_to(&self, circuits: Arc<dyn Circuits>, config: Arc<EngineConfig>) -> JoinHandle<()> {
        let (sender, changes) = unbounded_channel();
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        tokio::spawn(write(circuits, changes, config))
    }

    /// A run begins, with a closed circuit. One that was last said to be open, by this run or by a process that was killed, is
    /// not any more.
    pub(super) fn begin(&self, whose: Whose<'_>, circuits: Option<&dyn Circuits>) {
        let was_open = self.is_open.load(Ordering::Relaxed)
            || circuits.is_some_and(|circuits| circuits.is_open(whose.group, &whose.config.instance));
        if was_open {
            self.tell(whose, CircuitState::Closed, "begun anew: closed until calls fail");
        }
    }

    /// It changed.
    pub(super) fn tell(&self, whose: Whose<'_>, state: CircuitState, detail: &str) {
        self.is_open.store(state == CircuitState::Open, Ordering::Relaxed);
        if let Some(changes) = &*self.changes.lock().unwrap_or_else(PoisonError::into_inner) {
            let Whose { group, handler, config } = whose;
            // Nobody listens any more where the run is over.
            let _ = changes.send(CircuitChanged {
                meta: ops_meta(config),
                group: group.to_owned(),
                handler: handler.to_owned(),
                state: state.as_str().to_owned(),
                who: config.instance.clone(),
                detail: detail.chars().take(DETAIL_CHARS_MAX).collect(),
            });
        }
    }

    /// The run is over: what is not told by now is told for a while yet.
    pub(super) async fn end(&self, whose: Whose<'_>, writing: JoinHandle<()>) {
        if self.is_open.load(Ordering::Relaxed) {
            self.tell(whose, CircuitState::Closed, "the process stopped");
        }
        drop(self.changes.lock().unwrap_or_else(PoisonError::into_inner).take());
        if tokio::time::timeout(LAST_WORDS, writing).await.is_err() {
            warn!(handler = whose.handler, "topic `ops` was not told of the circuit in time");
        }
    }
}

async fn write(
    circuits: Arc<dyn Circuits>,
    mut changes: UnboundedReceiver<CircuitChanged>,
    config: Arc<EngineConfig>,
) {
    while let Some(change) = changes.recv().await {
        let mut told = None;
        for pause in config.pauses() {
            let Err(failure) = circuits.changed(&change).await else { break };
            let is_over = failure.fault != Fault::Transient;
            // Once for each reason.
            if is_over || told.as_ref() != Some(&failure.what) {
                warn!(handler = change.handler, %failure, "topic `ops` is not told that the circuit is {}", change.state);
                told = Some(failure.what);
            }
            if is_over {
                break;
            }
            tokio::time::sleep(pause).await;
        }
    }
}
