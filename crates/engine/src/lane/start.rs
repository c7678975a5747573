//! How a lane begins: from stored progress, on the log that it stands on.

use std::sync::Arc;

use fleetlog_projection::{
    LaneCore, LogLost, LogNow, Projection, Sink,
    mutant::{Mutant, on},
};
use tokio::{sync::Mutex, time::Instant};

use super::{Lane, Work, ahead::Ahead, mutants, orders::Orders, round::Pace};
use crate::{
    Failure,
    fault::Interrupt,
    ports::{LogFacts, Logs, Schemas},
    status::LaneState,
};

/// Facts about logs, asked once for all lanes that begin at the same time.
pub(crate) struct SharedLogs {
    logs: Arc<dyn Logs>,
    topics: Vec<String>,
    latest: Mutex<Option<(Instant, Facts)>>,
}

/// Every partition of a projection's topics.
type Facts = Arc<LogFacts>;

impl SharedLogs {
    pub(crate) fn new(logs: Arc<dyn Logs>, topics: Vec<String>) -> Self {
        Self { logs, topics, latest: Mutex::new(None) }
    }

    /// Who is asked.
    pub(crate) fn port(&self) -> &dyn Logs {
        &*self.logs
    }

    /// The facts, asked no earlier than `since`.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub(crate) async fn look(&self, since: Instant) -> Result<Facts, Failure> {
        let mut latest = self.latest.lock().await;
        if let Some((asked, facts)) = &*latest
            && *asked >= since
        {
            return Ok(Arc::clone(facts));
        }
        let asked = Instant::now();
        let facts = Arc::new(self.logs.look(&self.topics).await?);
        *latest = Some((asked, Arc::clone(&facts)));
        Ok(facts)
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Reads progress and asks to be read from where it says. After *Fenced* only with proof of ownership.
    pub(super) async fn start(&self, fenced: bool) -> Result<Work<P, C::Decode>, Interrupt> {
        self.status.set_state(LaneState::Starting);
        let since = Instant::now();
        let (stored, log) = tokio::try_join!(
            self.persist("reading progress", || self.shared.sink.read(&self.lane, &[])),
            self.log(since),
        )?;
        let begin = |log: &LogNow| {
            // A new nonce each time: what this owner wrote before the chain broke must not look like its own.
            LaneCore::start(self.lane.clone(), &stored, log, self.dedup_span_offsets, mutants::nonce())
        };
        let permanent = |lost: LogLost| Interrupt::Permanent(lost.to_string());
        let core = match begin(&log) {
            Ok(core) => core,
            // The facts may be older than the progress: asked again before a verdict that only a person can lift.
            Err(_) => begin(&self.log(Instant::now()).await?).map_err(permanent)?,
        };
        fail::fail_point!("lane.start.read");
        if fenced && !on(Mutant::OwnershipNotProved) {
            self.prove_ownership(core.progress().main).await?;
        }
        // Where nothing is set aside there is nothing to command.
        if P::READS_EVENTS {
            self.follow_inbox(core.progress().inbox);
        }
        self.status.set_end(log.high);
        self.want_headers(core.cursor());
        self.feed.read_from(core.cursor());
        fail::fail_point!("lane.start.sought");
        self.feed.acknowledge(core.progress().main);
        self.status.set_progress(core.progress());
        self.status.set_state(LaneState::Running);
        Ok(Work {
            core,
            cache: P::Cache::default(),
            ahead: Ahead::default(),
            flight: None,
            round: None,
            cached_bytes: 0,
            pace: Pace::new(),
            orders: Orders::none(),
            idle_at: Instant::now(),
            breaker: self.shared.halting.breaker(&self.shared.config),
        })
    }

    async fn log(&self, since: Instant) -> Result<LogNow, Interrupt> {
        let facts = self.persist("looking at the log", || self.shared.logs.look(since)).await?;
        let log = facts.get(&(self.lane.topic.clone(), self.lane.partition));
        log.copied().ok_or_else(|| {
            Interrupt::Permanent(format!("lane {}: the topic has no such partition any more", self.lane))
        })
    }
}
