//! A run that outlives halts and failures: it waits until somebody lets the projection go on, and begins again.

use std::sync::{Arc, Mutex, PoisonError};

use fleetlog_event::ops::{HaltCause, ProjectionHalted, resume_command};
use fleetlog_projection::{Projection, Sink};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{End, ProjectionRunner, RunMode};
use crate::{
    lane::Shared,
    membership::Membership,
    ports::{Halts, Schemas, Standing},
};

/// Tells a run that it has to end, from its lanes and its poll thread. Put back before the next attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarm(Arc<Mutex<CancellationToken>>);

impl Alarm {
    fn current(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn raise(&self) {
        self.current().cancel();
    }

    pub(super) async fn raised(&self) {
        self.current().cancelled_owned().await;
    }

    fn put_back(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
    }
}

/// Why a projection stands still.
enum Stand {
    /// It is halted, as far as topic `ops` (or, if there is none, this process) says.
    Halted(Box<ProjectionHalted>),
    /// It failed: for this process alone.
    Failed(String),
}

impl<P, S, C> ProjectionRunner<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Runs as a member of the group until it is stopped or has caught up. Where it is halted or fails it stays up, waits
    /// until it is resumed, and begins again from stored progress; with `Once`, or where nobody tells of halts, it ends.
    pub(crate) async fn run_on<M: Membership>(
        &self,
        membership: &M,
        mode: RunMode,
        stop: &CancellationToken,
    ) -> End {
        let Some(halts) = self.halts.as_deref() else {
            let end = self.attempt(membership, mode, stop).await;
            self.show_failure(&end);
            return end;
        };
        let mut standing = match self.read_standing(halts, stop).await {
            Ok(standing) => standing,
            Err(end) => return end,
        };
        loop {
            let stand = match standing.halt.clone() {
                Some(halt) => Stand::Halted(Box::new(halt)),
                None => match self.run_until_halted(membership, mode, halts, &mut standing, stop).await {
                    End::Failed(why) => self.failed(halts, &standing, why, stop).await,
                    // Another process halted it: it is told at the next turn.
                    End::Stopped if !stop.is_cancelled() && standing.halt.is_some() => continue,
                    end => return end,
                },
            };
            let text = self.show(&stand);
            if mode == RunMode::Once {
                return End::Failed(text);
            }
            standing = tokio::select! {
                () = stop.cancelled() => return self.given_up(stand),
                standing = await_resumed(halts, &self.shared.group, standing) => standing,
            };
            info!(projection = self.shared.projection.id(), "resumed; begins again");
        }
    }

    /// What topic `ops` says at the start. A cluster that cannot be asked is waited for.
    async fn read_standing(&self, halts: &dyn Halts, stop: &CancellationToken) -> Result<Standing, End> {
        self.insist("reading halts on topic `ops`", stop, || halts.current(&self.shared.group)).await
    }

    /// One attempt; a halt that comes meanwhile ends it as a stop does. `standing` is kept up to date.
    async fn run_until_halted<M: Membership>(
        &self,
        membership: &M,
        mode: RunMode,
        halts: &dyn Halts,
        standing: &mut Standing,
        stop: &CancellationToken,
    ) -> End {
        let Shared { status, halting, group, .. } = &*self.shared;
        self.failed.put_back();
        status.begin_anew();
        halting.begin(standing.set_asides_max);
        self.show_running();
        let attempt = stop.child_token();
        let running = self.attempt(membership, mode, &attempt);
        tokio::pin!(running);
        loop {
            tokio::select! {
                biased;
                end = &mut running => return end,
                // It drains. A resume from here on answers what has failed.
                () = self.failed.raised() => return running.await,
                now = halts.changed(group, standing), if standing.halt.is_none() => {
                    if now.halt.is_some() {
                        attempt.cancel();
                    }
                    *standing = now;
                }
            }
        }
    }

    /// It failed. Where a breaker tripped that is written down, so that every process sees it and none forgets it.
    async fn failed(
        &self,
        halts: &dyn Halts,
        standing: &Standing,
        why: String,
        stop: &CancellationToken,
    ) -> Stand {
        let Some(halt) = self.shared.halting.take() else { return Stand::Failed(why) };
        let projection = self.shared.projection.id();
        if let Some(known) = &standing.halt {
            return Stand::Halted(Box::new(known.clone()));
        }
        self.show(&Stand::Halted(Box::new(halt.clone())));
        let written = self.insist("writing down that it is halted", stop, || halts.halt(&halt)).await;
        if let Err(End::Failed(why)) = written {
            warn!(projection, "{why}; a process that is started anew does not know that it is halted");
        }
        Stand::Halted(Box::new(halt))
    }

    /// Shows in status, metrics and log that it stands still; says how.
    fn show(&self, stand: &Stand) -> String {
        let Shared { status, projection, .. } = &*self.shared;
        let id = projection.id();
        self.metrics.up(id).set(0);
        match stand {
            Stand::Halted(halt) => {
                let text = halt.state();
                if status.set_halted(halt.cause(), &text) {
                    error!(projection = id, "{text}");
                }
                self.metrics.show_halt(id, Some(halt.cause()));
                text
            }
            Stand::Failed(why) => {
                status.set_stopped(why);
                error!(projection = id, "stopped: {why}; to try again: {}", resume_command(id));
                self.metrics.show_halt(id, Some(HaltCause::Failed));
                why.clone()
            }
        }
    }

    fn show_running(&self) {
        let id = self.shared.projection.id();
        self.metrics.up(id).set(1);
        self.metrics.show_halt(id, None);
    }

    fn show_failure(&self, end: &End) {
        if let End::Failed(why) = end {
            let id = self.shared.projection.id();
            self.metrics.up(id).set(0);
            self.shared.status.set_stopped(why);
            error!(projection = id, "stopped for good: {why}");
        }
    }

    /// The process stops while it stands still.
    fn given_up(&self, stand: Stand) -> End {
        match stand {
            // It is where it was before the process began.
            Stand::Halted(_) => End::Stopped,
            Stand::Failed(why) => End::Failed(why),
        }
    }
}

/// Waits until it was resumed after what `standing` knows of, and nothing halts it.
async fn await_resumed(halts: &dyn Halts, group: &str, standing: Standing) -> Standing {
    let mut now = standing.clone();
    loop {
        now = halts.changed(group, &now).await;
        // A halt of its own may not be on the topic yet, or never come there.
        if now.halt.is_none() && (standing.halt.is_some() || now.resumes != standing.resumes) {
            return now;
        }
    }
}
