//! What a lane does when something goes wrong, fault class by fault class.

use std::time::{Duration, Instant};

use fleetlog_projection::{Fault, Link, Projection, SetAside, Sink, SinkError};
use tracing::{error, info, warn};

use super::{Lane, Shared, Trip, Work, telling::tell};
use crate::{
    Failure, fault::Interrupt, halting::Tripped, intake::CommitError, ports::Schemas, status::LaneState,
};

/// After how long a lane says again that it waits, and then ever more rarely.
const REMINDER: Duration = Duration::from_secs(60);

/// A failed call, of whatever it was.
pub(crate) trait Failed: std::fmt::Display {
    /// How to treat it.
    fn fault(&self) -> Fault;
}

impl Failed for SinkError {
    fn fault(&self) -> Fault {
        self.fault
    }
}

impl Failed for Failure {
    fn fault(&self) -> Fault {
        self.fault
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Calls until it works: waits on Transient for ever, with growing pauses, and ends on anything else. A call that
    /// does not answer in time counts as Transient: its outcome is unknown, and the same call is made again.
    ///
    /// A stop is obeyed between calls, never in the middle of one.
    pub(super) async fn persist<T, E: Failed, F>(
        &self,
        doing: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Interrupt>
    where
        F: Future<Output = Result<T, E>>,
    {
        let timeout = self.shared.config.store_timeout();
        let mut pauses = self.pauses();
        let (begun, mut reminder) = (Instant::now(), REMINDER);
        loop {
            let what = match tokio::time::timeout(timeout, call()).await {
                Ok(Ok(value)) => {
                    self.running();
                    return Ok(value);
                }
                Ok(Err(failed)) => match failed.fault() {
                    Fault::Transient => failed.to_string(),
                    Fault::Fenced => return Err(Interrupt::Fenced(failed.to_string())),
                    Fault::Permanent => {
                        return Err(Interrupt::Permanent(format!("lane {}: {doing}: {failed}", self.lane)));
                    }
                },
                Err(_) => format!("no answer within {} ms", timeout.as_millis()),
            };
            self.waiting(doing, &what);
            if begun.elapsed() > reminder {
                let waited_s = begun.elapsed().as_secs();
                tell!(
                    warn,
                    self.lane,
                    waited_s,
                    "{doing}: {what}; still waiting: is it something that does not pass?"
                );
                reminder *= 2;
            }
            self.pause(pauses.next()).await?;
        }
    }

    pub(super) fn pauses(&self) -> impl Iterator<Item = Duration> + use<P, S, C> {
        self.shared.config.pauses()
    }

    /// Waits, unless it is stopped meanwhile.
    pub(super) async fn pause(&self, length: Option<Duration>) -> Result<(), Interrupt> {
        self.metrics.retries.inc();
        let length = length.unwrap_or(Duration::from_millis(self.shared.config.retry_delay_ms_max));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Interrupt::Stopped),
            () = tokio::time::sleep(length) => Ok(()),
        }
    }

    /// Logged once, not each try: what is wrong shows in the status for as long as it lasts.
    fn waiting(&self, doing: &str, what: &str) {
        let was_waiting = matches!(self.status.state(), LaneState::Waiting(_));
        self.status.set_state(LaneState::Waiting(format!("{doing}: {what}")));
        if !was_waiting {
            tell!(warn, self.lane, "{doing}: {what}; waiting until it passes");
        }
    }

    fn running(&self) {
        if matches!(self.status.state(), LaneState::Waiting(_)) {
            self.status.set_state(LaneState::Running);
            tell!(info, self.lane, "goes on");
        }
    }

    /// The store must hold the link that this owner left.
    pub(super) fn check_link(
        &self,
        work: &Work<P, C::Decode>,
        stored: Option<Link>,
    ) -> Result<(), Interrupt> {
        if work.core.owns(stored) {
            return Ok(());
        }
        Err(Interrupt::Fenced(SinkError::fenced(&self.lane, work.core.link(), stored).to_string()))
    }

    /// After an interrupt: whether to begin again from stored progress (and whether because of a broken chain), or
    /// how it ends.
    pub(super) async fn begin_again(&self, interrupt: Interrupt) -> Result<bool, Interrupt> {
        match interrupt {
            Interrupt::Fenced(why) => {
                self.metrics.fenced.inc();
                self.status.count_fenced();
                tell!(warn, self.lane, "fenced: {why}; everything cached is dropped, progress is read again");
                Ok(true)
            }
            Interrupt::Restart(why) => {
                tell!(info, self.lane, "begins again: {why}");
                self.pause(None).await.map(|()| false)
            }
            Interrupt::Again(why) => {
                tell!(info, self.lane, "begins again: {why}");
                Ok(false)
            }
            Interrupt::Permanent(why) => {
                tell!(error, self.lane, "stopped: {why}");
                Err(Interrupt::Permanent(why))
            }
            Interrupt::Stopped => Err(Interrupt::Stopped),
        }
    }

    /// After *Fenced*: goes on only once Kafka has taken an offset commit of this member's generation.
    ///
    /// If the group has moved on, the partition may be somebody else's: then this lane is stopped when the client is
    /// told. But a cooperative rebalance that leaves the partition here has another generation too, and nobody
    /// assigns the partition anew then: so the question is asked again, with the generation of the day.
    pub(super) async fn prove_ownership(&self, progress: i64) -> Result<(), Interrupt> {
        let mut pauses = self.pauses();
        loop {
            match self.feed.prove_ownership(progress).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Transient(what)) => {
                    self.waiting("committing an offset to prove ownership", &what);
                }
                Err(CommitError::NotOurs(what)) => {
                    if self.status.set_state(LaneState::Parked) {
                        tell!(
                            warn,
                            self.lane,
                            "perhaps not ours any more: {what}; asking again until that is clear"
                        );
                    }
                }
            }
            self.pause(pauses.next()).await?;
        }
    }

    /// Halts the projection where too much of what comes would be set aside: rather a wrong setting than that many poison
    /// events. Nothing of the batch is set aside then.
    pub(super) fn check_flood(
        &self,
        work: &mut Work<P, C::Decode>,
        events: usize,
        set_aside: &[SetAside],
    ) -> Result<(), Interrupt> {
        work.breaker.count(events, set_aside.len()).map_err(|trip| self.tripped(trip, set_aside))
    }

    /// The same for what the store refused.
    pub(super) fn check_refused(
        &self,
        work: &mut Work<P, C::Decode>,
        refused: &[SetAside],
    ) -> Result<(), Interrupt> {
        work.breaker.refused(refused.len()).map_err(|trip| self.tripped(trip, refused))
    }

    fn tripped(&self, trip: Trip, set_aside: &[SetAside]) -> Interrupt {
        let Shared { config, group, halting, status, .. } = &*self.shared;
        let halt = halting.tripped(
            config,
            &Tripped {
                group,
                id: &self.lane.projection,
                version: self.lane.version,
                counted: format!("lane {}", self.lane),
                trip,
                topic: &self.lane.topic,
                partition: self.lane.partition,
                first: set_aside.first().map(|aside| (aside.record.offset, &aside.reject)),
                hint: "is the topic, the registry or the producers' version wrong?",
            },
        );
        let text = halt.state();
        // At once, not when it has drained: it never looks like a failure.
        status.set_halted(halt.cause(), &text);
        Interrupt::Permanent(text)
    }
}
