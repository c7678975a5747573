//! The worker behind `fleetlog presence`: looks at hot state again and again, lets `fleetlog-presence` decide, sends, and
//! believes what was acknowledged. All durations are by the monotonic clock.

mod told;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use fleetlog_event::{FleetEvent, LogId, catalogue::physical_name, robot::RobotEvent};
use fleetlog_kafka::{Admin, Offsets};
use fleetlog_presence::{
    Candidate, Coverage, Kind, Pace, Round, Rules, Status, Trust, Watch, decide,
    metrics::{LookOutcome, PresenceMetrics},
};
use fleetlog_producer::{BatchError, EventProducer, ProducerMetrics};
use fleetlog_projection::{FoldProjector, LaneId};
use fleetlog_projections::{Described, UnitConsensus, UnitStatus};
use fleetlog_sink_redis::{HotReader, Lease};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config},
    lanes, wiring,
};
use told::{Told, named};

/// A look may take at most one part in so many of the time: with very many units they become rarer.
const LOOK_SHARE: u32 = 10;
/// Units that are asked about, and sent, before acknowledgements are awaited and the lease is looked at again.
const BATCH_UNITS: usize = 100;
/// Units that hot state is asked about for each event that may be sent: who signed off and still sends is asked about
/// again and again, and must not take the places of others.
const ASKED_PER_EVENT: usize = 10;
/// Steps of the search for sites in one look, and how often all is searched.
const SEARCH_STEPS: usize = 100;
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);
/// How long the end may take to give the lease back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The worker.
pub(crate) struct Presence {
    config: Config,
    hot: HotReader,
    lease: Lease,
    log: Log,
    producer: EventProducer,
    metrics: PresenceMetrics,
    standing: Standing,
    begun: Instant,
    sites: Sites,
    watching: Option<Watching>,
    told: Told,
}

/// What it is doing, for probes.
#[derive(Clone)]
pub(crate) struct Standing(Arc<Mutex<Result<&'static str, String>>>);

/// What belongs to a time of being the active one, and is forgotten with it.
struct Watching {
    watch: Watch,
    coverage: Coverage,
    pace: Pace,
}

/// Where the log is.
struct Log {
    offsets: Offsets,
    admin: Admin,
    topic_prefix: String,
    projections: Vec<Described>,
}

/// A lane that folds what is looked at, and its partition now.
struct LaneNow {
    id: LaneId,
    log: LogId,
    low: i64,
    end: i64,
}

/// The sites that are known, and the search for more.
#[derive(Default)]
struct Sites {
    known: BTreeSet<String>,
    cursor: Option<u64>,
    searched_at: Option<Instant>,
}

impl Presence {
    pub(crate) fn new(
        config: &Config,
        instance: &str,
        metrics: PresenceMetrics,
        producer_metrics: ProducerMetrics,
    ) -> anyhow::Result<Self> {
        let (redis, kafka) = (wiring::redis_settings(config)?, wiring::kafka_settings(config));
        let ids = [UnitConsensus::ID, UnitStatus::ID].map(str::to_owned);
        Ok(Self {
            hot: HotReader::open(redis.clone())?,
            lease: Lease::open(&redis, "presence", instance, config.presence.lease_ms)?,
            log: Log {
                offsets: Offsets::new(&kafka)?,
                admin: Admin::new(&kafka)?,
                topic_prefix: kafka.topic_prefix.clone(),
                projections: lanes::chosen(&ids)?,
            },
            producer: wiring::producer_with(
                config,
                &wiring::giving_up_after(kafka, delivery_timeout_ms(config)),
                producer_metrics,
            )?,
            metrics,
            standing: Standing(Arc::new(Mutex::new(Err("has not looked yet".to_owned())))),
            begun: Instant::now(),
            sites: Sites::default(),
            watching: None,
            told: Told::default(),
            config: config.clone(),
        })
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Watches, or stands by, until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let begun = Instant::now();
            let outcome = tokio::select! {
                () = stop.cancelled() => break,
                outcome = self.round() => outcome,
            };
            self.tell(outcome);
            // The lease is renewed at the beginning of a round: it has to outlive the pause and a look.
            let presence = &self.config.presence;
            let longest = Duration::from_millis((presence.timeout_ms / 6).min(presence.lease_ms / 2));
            let pause = (begun.elapsed() * LOOK_SHARE).min(longest).max(self.interval());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause.saturating_sub(begun.elapsed())) => {}
            }
        }
        // It runs out by itself where this fails.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, self.lease.release()).await;
        self.metrics.stand_by();
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.config.presence.interval_ms)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        if !self.hold().await? {
            return Ok(());
        }
        let begun = Instant::now();
        let looked = self.look().await;
        self.metrics.look_seconds.observe(begun.elapsed().as_secs_f64());
        let round = looked.inspect_err(|_| self.metrics.looks(LookOutcome::Failed, 1))?;
        self.say(&round, begun).await
    }

    /// Whether this worker is the active one. One that no longer is forgets all that it saw.
    async fn hold(&mut self) -> anyhow::Result<bool> {
        let held = self.lease.hold().await;
        if !self.lease.is_held() {
            if self.watching.take().is_some() {
                tracing::warn!("another worker watches now, or the lease could not be renewed: standing by");
            } else if held.is_ok() && !self.told.stands_by {
                tracing::info!("another worker watches: standing by");
            }
            self.told.stands_by = held.is_ok();
            self.metrics.stand_by();
        } else if self.watching.is_none() {
            let presence = &self.config.presence;
            tracing::info!(timeout_ms = presence.timeout_ms, "watching for units that fall silent");
            self.watching = Some(Watching::new(presence));
            self.metrics.active.set(1);
            self.told = Told::default();
        }
        Ok(held? && self.watching.is_some())
    }

    /// Looks at all of hot state once. Ends of the log, then progress, then who is connected, then who was heard: in this
    /// order what is shown is never older than what it is taken for.
    async fn look(&mut self) -> anyhow::Result<Round> {
        let at_ms = self.now_ms();
        let lanes = self.log.lanes().await?;
        let ids: Vec<LaneId> = lanes.iter().map(|lane| lane.id.clone()).collect();
        let progress = self.hot.progress(&ids).await?;
        let next: Vec<Option<i64>> =
            lanes.iter().zip(progress).map(|(lane, progress)| lane.next(progress)).collect();
        self.sites.search(&self.hot).await?;
        let now_ms = self.now_ms();
        let watching = self.watching.as_mut().context("the lease is gone")?;
        watching.coverage.ends(at_ms, lanes.iter().map(|lane| lane.end).collect());
        let trust = watching.watch.begin(now_ms, watching.coverage.covered(&next));
        self.told.look(trust, &lanes, &next);
        let mut inhabited = BTreeSet::new();
        for site in &self.sites.known {
            if watching.site(&self.hot, site).await? {
                inhabited.insert(site.clone());
            }
        }
        self.sites.known = inhabited;
        Ok(watching.watch.end(watching.pace.allowed(now_ms).saturating_mul(ASKED_PER_EVENT)))
    }

    /// Says what a look that began at `begun` came to: to people, and as events.
    async fn say(&mut self, round: &Round, begun: Instant) -> anyhow::Result<()> {
        let outcome = match round.trust {
            Trust::Current => LookOutcome::Current,
            Trust::Anew => LookOutcome::Anew,
            Trust::Behind => LookOutcome::Behind,
        };
        self.metrics.looks(outcome, 1);
        self.metrics.units.set(gauge(round.units));
        self.metrics.quiet_sites.set(gauge(round.quiet));
        self.told.quiet(round, self.config.presence.quiet_site_hold_ms);
        let (mut due, mut outcome) = (round.candidates.as_slice(), Ok(()));
        while !due.is_empty() && outcome.is_ok() && self.is_fresh(begun) && self.hold().await? {
            let places = self.places().min(due.len());
            if places == 0 {
                break;
            }
            let (batch, rest) = due.split_at(places);
            outcome = self.judge(batch).await;
            due = rest;
        }
        let waiting = round.waiting + due.len();
        self.metrics.waiting_units.set(gauge(waiting));
        if outcome.is_ok() && self.is_fresh(begun) {
            self.told.waiting(waiting, self.config.presence.events_per_s_max);
        }
        outcome
    }

    /// Whether what a look showed can still be acted on: a worker that was frozen in between knows nothing of now.
    fn is_fresh(&self, looked: Instant) -> bool {
        self.watching.as_ref().is_some_and(|watching| {
            looked.elapsed() <= Duration::from_millis(watching.watch.rules().doubt_ms())
        })
    }

    /// How many events may be sent now, in one batch.
    fn places(&mut self) -> usize {
        let now_ms = self.now_ms();
        self.watching.as_mut().map_or(0, |watching| watching.pace.allowed(now_ms).min(BATCH_UNITS))
    }

    /// Asks hot state about the candidates once more, sends what they become, and awaits the acknowledgements.
    async fn judge(&mut self, candidates: &[Candidate]) -> anyhow::Result<()> {
        let homes: Vec<String> = candidates.iter().map(|due| format!("unit:{}", due.unit)).collect();
        let fields = self.hot.fields(&homes, &Status::FIELDS).await?;
        let decided =
            candidates.iter().zip(&fields).map(|(due, fields)| (due, decide(due, &Status::read(fields))));
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        for (due, event) in decided {
            match event {
                Some(event) => sent.push((due, self.send(event).await)),
                None => answered.push(due),
            }
        }
        let (mut said, mut failed) = (Vec::new(), None);
        for (due, delivery) in sent {
            let outcome = match delivery {
                Ok(delivery) => delivery.await.map(drop).map_err(BatchError::from),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => said.push(due),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let now_ms = self.now_ms();
        if let Some(watching) = &mut self.watching {
            watching.pace.sent(said.len());
            said.iter().chain(&answered).for_each(|due| watching.watch.answered(due, now_ms));
        }
        self.tell_said(&said);
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn send(&self, event: RobotEvent) -> Result<fleetlog_producer::Delivery, BatchError> {
        Ok(self.producer.send_any(FleetEvent::Robot(event)).await?)
    }

    fn tell_said(&self, said: &[&Candidate]) {
        for kind in Kind::ALL {
            let units: Vec<&str> =
                said.iter().filter(|due| due.kind == kind).map(|due| due.unit.as_str()).collect();
            if units.is_empty() {
                continue;
            }
            self.metrics.events(kind, u64::try_from(units.len()).unwrap_or(u64::MAX));
            let what = match kind {
                Kind::Silent => "fell silent: Disconnected(timeout)",
                Kind::Back => "heard while they did not count as connected: Connected",
            };
            tracing::info!(units = units.len(), "{}: {what}", named(&units));
        }
    }

    fn tell(&mut self, outcome: anyhow::Result<()>) {
        let mut standing = self.standing.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                *standing = match (&self.watching, self.told.behind()) {
                    (Some(_), Some(lanes)) => {
                        Err(format!("hot state is behind the log ({lanes}): nobody is judged"))
                    }
                    (Some(_), None) => Ok("watching"),
                    (None, _) => Ok("standing by"),
                };
                if self.told.trouble.take().is_some() {
                    tracing::info!("looking on");
                }
            }
            Err(error) => {
                let text = format!("{error:#}");
                *standing = Err(text.clone());
                if self.told.trouble.is_none() {
                    tracing::warn!("nobody is judged meanwhile: {text}");
                }
                self.told.trouble = Some(text);
            }
        }
    }
}

impl Standing {
    /// What it is doing, or why it cannot.
    pub(crate) fn now(&self) -> Result<String, String> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        now.map(str::to_owned)
    }
}

impl Watching {
    fn new(settings: &config::Presence) -> Self {
        let hold_ms = settings.quiet_site_hold_ms;
        let rules =
            Rules { timeout_ms: settings.timeout_ms, quiet_hold_ms: (hold_ms > 0).then_some(hold_ms) };
        Self {
            watch: Watch::new(rules),
            coverage: Coverage::new(rules.doubt_ms()),
            pace: Pace::new(settings.events_per_s_max),
        }
    }

    /// Shows the watch all units of a site. Whether there are any.
    async fn site(&mut self, hot: &HotReader, site_uid: &str) -> anyhow::Result<bool> {
        let mut online = HashMap::new();
        let list = format!("online:{site_uid}");
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let page = hot.page(&list, at).await?;
            // Scores are whole milliseconds.
            online.extend(page.members.into_iter().map(|(unit, since)| (unit, since as i64)));
            cursor = page.next;
        }
        let list = format!("seen:{site_uid}");
        let (mut cursor, mut any) = (Some(0), false);
        while let Some(at) = cursor {
            let page = hot.page(&list, at).await?;
            any |= !page.members.is_empty();
            for (unit, seen) in page.members {
                self.watch.unit(site_uid, &unit, seen as i64, online.get(&unit).copied());
            }
            cursor = page.next;
        }
        Ok(any)
    }
}

impl Log {
    async fn lanes(&self) -> anyhow::Result<Vec<LaneNow>> {
        let stems: BTreeSet<&str> =
            self.projections.iter().flat_map(|projection| projection.topics).copied().collect();
        let topics: Vec<String> = stems.iter().map(|stem| physical_name(&self.topic_prefix, stem)).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ids = self.admin.topic_ids(&topics).await?;
        let ranges = self.offsets.ranges(&topics).await?;
        let mut lanes = Vec::new();
        for projection in &self.projections {
            for ((topic, partition), range) in &ranges {
                let reads = |stem: &&str| physical_name(&self.topic_prefix, stem) == *topic;
                if projection.topics.iter().any(reads) {
                    let id = lanes::lane_id(projection, topic, *partition);
                    let log = *ids.get(topic).context("a topic vanished")?;
                    lanes.push(LaneNow { id, log, low: range.low, end: range.end });
                }
            }
        }
        Ok(lanes)
    }
}

impl LaneNow {
    /// The next offset that the lane takes of this log; none where it is on another.
    fn next(&self, progress: Option<(LogId, i64)>) -> Option<i64> {
        match progress {
            None => Some(self.low),
            Some((log, next)) => (log == self.log).then_some(next),
        }
    }
}

impl Sites {
    /// Goes on with the search for sites, a bounded way.
    async fn search(&mut self, hot: &HotReader) -> anyhow::Result<()> {
        if self.cursor.is_none() {
            if self.searched_at.is_some_and(|at| at.elapsed() < SEARCH_INTERVAL) {
                return Ok(());
            }
            self.cursor = Some(0);
        }
        for _ in 0..SEARCH_STEPS {
            let Some(cursor) = self.cursor else { break };
            let (found, next) = hot.lists("seen:", cursor).await?;
            self.known.extend(found);
            self.cursor = next;
        }
        if self.cursor.is_none() {
            self.searched_at = Some(Instant::now());
        }
        Ok(())
    }
}

/// Within the lease.
fn delivery_timeout_ms(config: &Config) -> u64 {
    config.presence.lease_ms / 2
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
