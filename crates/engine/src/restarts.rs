//! A run that outlives halts and failures: it waits until somebody lets the projection or handler go on, and begins again.

use std::sync::{Arc, Mutex, PoisonError};

use fleetlog_event::ops::{HaltCause, ProjectionHalted, resume_command};
use futures_util::future::BoxFuture;
use prometheus::IntGaugeVec;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    End,
    halting::Halting,
    member::Member,
    ports::{Halts, Standing},
};

/// Tells a run that it has to end, from its lanes and its poll thread. Put back before the next attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm(Arc<Mutex<CancellationToken>>);

impl Alarm {
    fn current(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn raise(&self) {
        self.current().cancel();
    }

    pub(crate) async fn raised(&self) {
        self.current().cancelled_owned().await;
    }

    fn put_back(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
    }
}

/// Shows in metrics whether a projection or handler runs, and what it is halted by.
pub(crate) trait ShowRun: Sync {
    /// `halted` is why it stands still in every process, or failed in this one.
    fn show(&self, is_up: bool, halted: Option<HaltCause>);
}

/// Shows it by two gauges: one by id, and one by id and cause.
pub(crate) fn show_run(
    (up, halts): (&IntGaugeVec, &IntGaugeVec),
    id: &str,
    is_up: bool,
    halted: Option<HaltCause>,
) {
    up.with_label_values(&[id]).set(i64::from(is_up));
    for cause in HaltCause::ALL {
        halts.with_label_values(&[id, cause.as_str()]).set(i64::from(halted == Some(cause)));
    }
}

/// Why it stands still.
enum Stand {
    /// It is halted, as far as topic `ops` (or, if there is none, this process) says.
    Halted(Box<ProjectionHalted>),
    /// It failed: for this process alone.
    Failed(String),
}

/// A projection or handler that stands still where it is halted, and begins anew.
pub(crate) struct Restarting<'a> {
    pub(crate) member: Member<'a>,
    pub(crate) group: &'a str,
    pub(crate) halting: &'a Halting,
    /// What ends an attempt from within.
    pub(crate) alarm: &'a Alarm,
    pub(crate) shows: &'a dyn ShowRun,
    /// It ends instead of waiting for somebody.
    pub(crate) once: bool,
}

/// One attempt, until it is stopped.
type Attempt<'a> = dyn Fn(CancellationToken) -> BoxFuture<'a, End> + Send + Sync + 'a;

impl Restarting<'_> {
    /// Makes attempts until it is stopped or has caught up. Where it is halted or fails it stays up, waits until it is resumed,
    /// and begins again; `once`, or where nobody tells of halts, it ends.
    pub(crate) async fn run(
        &self,
        halts: Option<&dyn Halts>,
        stop: &CancellationToken,
        attempt: &Attempt<'_>,
    ) -> End {
        let Some(halts) = halts else {
            self.shows.show(true, None);
            let end = attempt(stop.clone()).await;
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
                None => match self.run_until_halted(halts, &mut standing, stop, attempt).await {
                    End::Failed(why) => self.failed(halts, &standing, why, stop).await,
                    // Another process halted it: it is told at the next turn.
                    End::Stopped if !stop.is_cancelled() && standing.halt.is_some() => continue,
                    end => return end,
                },
            };
            let text = self.show(&stand);
            if self.once {
                return End::Failed(text);
            }
            standing = tokio::select! {
                () = stop.cancelled() => return given_up(stand),
                standing = await_resumed(halts, self.group, standing) => standing,
            };
            info!(projection = self.member.id, "resumed; begins again");
        }
    }

    /// What topic `ops` says at the start. A cluster that cannot be asked is waited for.
    async fn read_standing(&self, halts: &dyn Halts, stop: &CancellationToken) -> Result<Standing, End> {
        self.member.insist("reading halts on topic `ops`", stop, || halts.current(self.group)).await
    }

    /// One attempt; a halt that comes meanwhile ends it as a stop does. `standing` is kept up to date.
    async fn run_until_halted(
        &self,
        halts: &dyn Halts,
        standing: &mut Standing,
        stop: &CancellationToken,
        attempt: &Attempt<'_>,
    ) -> End {
        self.alarm.put_back();
        self.member.status.begin_anew();
        self.halting.begin(standing.set_asides_max);
        self.shows.show(true, None);
        let stopping = stop.child_token();
        let mut running = attempt(stopping.clone());
        loop {
            tokio::select! {
                biased;
                end = &mut running => return end,
                // It drains. A resume from here on answers what has failed.
                () = self.alarm.raised() => return running.await,
                now = halts.changed(self.group, standing), if standing.halt.is_none() => {
                    if now.halt.is_some() {
                        stopping.cancel();
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
        let Some(halt) = self.halting.take() else { return Stand::Failed(why) };
        if let Some(known) = &standing.halt {
            return Stand::Halted(Box::new(known.clone()));
        }
        self.show(&Stand::Halted(Box::new(halt.clone())));
        let written = self.member.insist("writing down that it is halted", stop, || halts.halt(&halt)).await;
        if let Err(End::Failed(why)) = written {
            warn!(
                projection = self.member.id,
                "{why}; a process that is started anew does not know that it is halted"
            );
        }
        Stand::Halted(Box::new(halt))
    }

    /// Shows in status, metrics and log that it stands still; says how.
    fn show(&self, stand: &Stand) -> String {
        let Member { id, status, .. } = self.member;
        match stand {
            Stand::Halted(halt) => {
                let text = halt.state();
                if status.set_halted(halt.cause(), &text) {
                    error!(projection = id, "{text}");
                }
                self.shows.show(false, Some(halt.cause()));
                text
            }
            Stand::Failed(why) => {
                status.set_stopped(why);
                error!(projection = id, "stopped: {why}; to try again: {}", resume_command(id));
                self.shows.show(false, Some(HaltCause::Failed));
                why.clone()
            }
        }
    }

    fn show_failure(&self, end: &End) {
        if let End::Failed(why) = end {
            let Member { id, status, .. } = self.member;
            self.shows.show(false, None);
            status.set_stopped(why);
            error!(projection = id, "stopped for good: {why}");
        }
    }
}

/// The process stops while it stands still.
fn given_up(stand: Stand) -> End {
    match stand {
        // It is where it was before the process began.
        Stand::Halted(_) => End::Stopped,
        Stand::Failed(why) => End::Failed(why),
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
