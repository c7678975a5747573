//! A lane at work: takes batches, projects them, writes them on its chain.
//!
//! The decisions are [`LaneCore`]'s, which is pure; this carries them out. The main path is [`Lane::step`].

mod faults;
mod mutants;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use fail::fail_point;
use fleetlog_event::{Decode, TimestampMs, partition_of};
use fleetlog_projection::{
    Admission, Batch, Commit, LaneCore, LaneId, Projected, Projection, Record, RefusedAt, Rulings, SetAside,
    Sink, Taken, UnitOfWork, Writes,
    mutant::{Mutant, on},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    DeadLetter, EngineConfig, Failure, Origin,
    fault::Interrupt,
    intake::{LaneFeed, Taking},
    metrics::LaneMetrics,
    ports::{DeadLetters, Schemas},
    status::{Counts, LaneState, LaneStatus, ProjectionStatus},
};

pub(crate) use start::SharedLogs;

/// What the lanes of one projection share.
pub(crate) struct Shared<P, S, C> {
    pub(crate) projection: P,
    pub(crate) sink: S,
    pub(crate) schemas: C,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) logs: SharedLogs,
    pub(crate) config: Arc<EngineConfig>,
    /// The consumer group, for dead letters.
    pub(crate) group: String,
    pub(crate) status: Arc<ProjectionStatus>,
    /// Told why this projection stops.
    pub(crate) fail: Box<dyn Fn(Failure) + Send + Sync>,
}

/// One lane.
pub(crate) struct Lane<P, S, C> {
    pub(crate) shared: Arc<Shared<P, S, C>>,
    pub(crate) lane: LaneId,
    pub(crate) dedup_span_offsets: i64,
    pub(crate) feed: LaneFeed,
    pub(crate) status: Arc<LaneStatus>,
    pub(crate) metrics: LaneMetrics,
    pub(crate) stop: CancellationToken,
}

/// What a lane knows between two readings of its progress; dropped as a whole when the chain is broken.
pub(crate) struct Work<P: Projection> {
    core: LaneCore,
    cache: P::Cache,
    /// When to look at the link, or to write a move over markers.
    idle_at: Instant,
    /// Set aside without one event taken between, counted by whole batches.
    set_aside_in_a_row: usize,
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Works until it is stopped, or something permanent stops its projection.
    pub(crate) async fn run(self) {
        let mut fenced = false;
        let mut survivor = mutants::Survivor::none();
        let end = loop {
            let interrupt = match self.start(fenced).await {
                Ok(mut work) => {
                    survivor.enter(&mut work);
                    let interrupt = self.work(&mut work).await;
                    survivor.leave(work);
                    interrupt
                }
                Err(interrupt) => interrupt,
            };
            match self.begin_again(interrupt).await {
                Ok(was_fenced) => fenced = was_fenced,
                Err(end) => break end,
            }
        };
        if let Interrupt::Permanent(why) = end {
            self.status.set_state(LaneState::Stopped(why.clone()));
            (self.shared.fail)(Failure::permanent(why));
        }
    }

    async fn work(&self, work: &mut Work<P>) -> Interrupt {
        let config = &self.shared.config;
        loop {
            let taking = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Interrupt::Stopped,
                taking = self.feed.take(work.core.cursor(), config.batch_events_max, config.batch_bytes_max) => {
                    Some(taking)
                }
                () = tokio::time::sleep_until(work.idle_at) => None,
            };
            let done = match taking {
                Some(Taking::Batch(batch)) => {
                    let bytes = batch.records.iter().map(Record::size_bytes).sum();
                    let done = self.step(work, batch).await;
                    self.feed.release(bytes);
                    self.shared.status.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    done
                }
                Some(Taking::OutOfRange) => {
                    Err(Interrupt::Restart("an offset does not exist any more".into()))
                }
                None => self.idle(work).await,
            };
            if let Err(interrupt) = done {
                return interrupt;
            }
        }
    }

    /// The heart: drop what is stale or a duplicate → read states → project → dead letters acknowledged → commit on
    /// the chain → acknowledge.
    async fn step(&self, work: &mut Work<P>, batch: Batch) -> Result<(), Interrupt> {
        let event_id = |record: &Record| self.shared.schemas.event_id(record.value.as_deref());
        let taken =
            match work.core.admit(batch, event_id).map_err(|lost| Interrupt::Permanent(lost.to_string()))? {
                Admission::Take(taken) => taken,
                Admission::Stale => {
                    self.feed.read_from(work.core.cursor());
                    return Ok(());
                }
            };
        if taken.records.is_empty() {
            return self.move_silently(work).await;
        }
        fail_point!("step.admitted");
        let fresh = taken.fresh();
        let decode = self.persist("looking up schemas", || self.shared.schemas.prepare(&fresh)).await?;
        self.read_states(work, &fresh).await?;
        fail_point!("step.states-read");
        let (unit, pending) = self.write(work, &taken, &fresh, &decode).await?;
        self.count(&taken, &unit);
        work.core.written(&unit, Some(taken.sifted));
        self.shared.projection.committed(&mut work.cache, pending);
        fail_point!("step.committed");
        self.moved(work);
        Ok(())
    }

    /// Reads the states that the batch needs and the cache lacks.
    async fn read_states(&self, work: &mut Work<P>, fresh: &[&Record]) -> Result<(), Interrupt> {
        let Shared { projection, sink, .. } = &*self.shared;
        let scope = *work.core.scope();
        let missing = projection.missing(&work.cache, fresh).into_iter();
        // A key of another partition is another lane's entity: its event is rejected (`wrong_partition`) without a
        // look at the state, which would be of another partition and stop this projection.
        let own = missing
            .filter(|(key, _)| partition_of(key.as_str().as_bytes(), scope.partitions) == scope.partition);
        let (keys, homes): (Vec<_>, Vec<_>) = own.unzip();
        if homes.is_empty() {
            return Ok(());
        }
        let stored = self.persist("reading states", || sink.read(&self.lane, &homes)).await?;
        self.check_link(work, stored.link)?;
        for (key, state) in keys.into_iter().zip(stored.states) {
            let admitted = projection.admit(&mut work.cache, &scope, key, state);
            admitted.map_err(|bad| Interrupt::Permanent(format!("lane {}: {bad}", self.lane)))?;
        }
        Ok(())
    }

    /// Projects and writes; what the store refuses is set aside and the rest projected again.
    async fn write<D: Decode>(
        &self,
        work: &mut Work<P>,
        taken: &Taken,
        fresh: &[&Record],
        decode: &D,
    ) -> Result<(UnitOfWork<P::Write>, P::Pending), Interrupt> {
        let mut rulings = work.core.rulings();
        let mut published = BTreeSet::new();
        loop {
            let Projected { entities, rows, set_aside, pending } =
                self.project(work, fresh, &rulings, decode)?;
            fail_point!("step.projected");
            self.check_flood(work, fresh.len(), set_aside.len())?;
            self.publish(work, &set_aside, &mut published).await?;
            let mut unit = work.core.unit(taken, Writes { entities, rows, set_aside }, now());
            match self.commit(&mut unit).await? {
                Commit::Applied | Commit::AlreadyApplied => return Ok((unit, pending)),
                Commit::Refused(at) => self.add_refused(&mut rulings, at)?,
            }
        }
    }

    /// Pure, but somebody's code: a panic in it is a bug, stops the projection, and sets nothing aside.
    fn project<D: Decode>(
        &self,
        work: &Work<P>,
        fresh: &[&Record],
        rulings: &Rulings,
        decode: &D,
    ) -> Result<Projected<P::Write, P::Pending>, Interrupt> {
        let projection = &self.shared.projection;
        let call =
            AssertUnwindSafe(|| projection.project(work.core.scope(), decode, fresh, rulings, &work.cache));
        std::panic::catch_unwind(call).map_err(|panic| {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let offsets = (fresh.first().map_or(0, |r| r.offset), fresh.last().map_or(0, |r| r.offset));
            Interrupt::Permanent(format!(
                "lane {}: the projector panicked on a batch of offsets {} to {}: {said}; this is a bug of `{}`, no \
                 event was set aside",
                self.lane, offsets.0, offsets.1, self.lane.projection
            ))
        })
    }

    /// Sends dead letters and waits until every one is acknowledged; each once per step.
    async fn publish(
        &self,
        work: &Work<P>,
        set_aside: &[SetAside],
        published: &mut BTreeSet<i64>,
    ) -> Result<(), Interrupt> {
        let config = &self.shared.config;
        let origin = Origin {
            lane: &self.lane,
            log: work.core.scope().log,
            group: &self.shared.group,
            application_version: &config.application_version,
            now: now(),
        };
        let new = set_aside.iter().filter(|aside| !published.contains(&aside.record.offset));
        let letters: Vec<DeadLetter> =
            new.map(|aside| DeadLetter::new(aside, &origin, config.dead_letter_bytes_max)).collect();
        if letters.is_empty() {
            return Ok(());
        }
        fail_point!("dead-letters.before");
        if on(Mutant::DeadLetterNotAwaited) {
            let dead_letters = Arc::clone(&self.shared.dead_letters);
            tokio::spawn(async move { dead_letters.publish(&letters).await });
            return Ok(());
        }
        self.persist("publishing dead letters", || self.shared.dead_letters.publish(&letters)).await?;
        fail_point!("dead-letters.after");
        published.extend(set_aside.iter().map(|aside| aside.record.offset));
        Ok(())
    }

    async fn commit(&self, unit: &mut UnitOfWork<P::Write>) -> Result<Commit, Interrupt> {
        let _timer = self.metrics.commit_seconds.start_timer();
        let sink = &self.shared.sink;
        mutants::before_commit(sink, unit).await.map_err(|error| Interrupt::Restart(error.to_string()))?;
        fail_point!("commit.before");
        let committed = self.persist("writing", || sink.commit(unit)).await?;
        fail_point!("commit.after");
        Ok(committed)
    }

    fn add_refused(&self, rulings: &mut Rulings, refused: Vec<RefusedAt>) -> Result<(), Interrupt> {
        let before = rulings.refused.len();
        let refused: BTreeMap<i64, String> = refused.into_iter().map(|at| (at.offset, at.detail)).collect();
        rulings.refused.extend(refused);
        if rulings.refused.len() == before {
            let what = "the store refuses nothing that was not set aside already; this is a bug of the sink";
            return Err(Interrupt::Permanent(format!("lane {}: {what}", self.lane)));
        }
        Ok(())
    }

    /// Over transaction markers and records below progress: written at once if that was not done lately.
    async fn move_silently(&self, work: &mut Work<P>) -> Result<(), Interrupt> {
        if work.core.moved_silently() && Instant::now() >= work.idle_at {
            return self.idle(work).await;
        }
        Ok(())
    }

    /// Every second of quiet: a pending move over markers is written, else the link is looked at, so that a lost
    /// tail or another owner is noticed.
    async fn idle(&self, work: &mut Work<P>) -> Result<(), Interrupt> {
        if work.core.moved_silently() {
            let mut unit = work.core.empty_move(now());
            // An empty write has no rows that could be refused.
            self.commit(&mut unit).await?;
            work.core.written(&unit, None);
            self.moved(work);
        } else if !on(Mutant::IdleLinkNotRead) {
            let stored =
                self.persist("looking at the link", || self.shared.sink.read(&self.lane, &[])).await?;
            self.check_link(work, stored.link)?;
        }
        work.idle_at = Instant::now() + self.shared.config.idle_interval();
        Ok(())
    }

    /// Progress was written.
    fn moved(&self, work: &mut Work<P>) {
        let main = work.core.progress().main;
        self.feed.acknowledge(main);
        self.status.set_progress(main);
        self.metrics.progress.set(main);
        self.metrics.buffered_bytes.set(i64::try_from(self.feed.held_bytes()).unwrap_or(i64::MAX));
        if let Some(end) = self.status.end() {
            self.metrics.lag.set((end - main).max(0));
        }
        work.idle_at = Instant::now() + self.shared.config.idle_interval();
    }

    fn count(&self, taken: &Taken, unit: &UnitOfWork<P::Write>) {
        let records = taken.records.len() as u64;
        let duplicates = taken.sifted.duplicate.iter().filter(|duplicate| **duplicate).count() as u64;
        let events = records - duplicates;
        let set_aside = unit.set_aside.len() as u64;
        self.metrics.events.inc_by(events);
        self.metrics.duplicates.inc_by(duplicates);
        self.metrics.batch_events.observe(events as f64);
        let (visible, at) = (self.metrics.visible_seconds.local(), now().0);
        for record in taken.fresh() {
            visible.observe((at - record.timestamp.0).max(0) as f64 / 1000.0);
        }
        visible.flush();
        unit.set_aside.iter().for_each(|aside| self.metrics.set_aside(aside.reject.reason.as_str()));
        let Counts { events: e, duplicates: d, set_aside: s, batches: b, .. } = &self.shared.status.counts;
        for (counter, by) in [(e, events), (d, duplicates), (s, set_aside), (b, 1)] {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }
}

/// The wall clock: for ledger entries and dead letters, never for a projection.
fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
