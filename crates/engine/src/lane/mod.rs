//! A lane at work: takes batches, projects them, writes them on its chain.
//!
//! The decisions are [`LaneCore`]'s, which is pure; this carries them out. The main path is [`Lane::step`].

mod ahead;
mod breaker;
mod carry_out;
mod faults;
mod headers;
mod letters;
mod mutants;
mod orders;
mod prepare;
mod round;
mod start;
mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use fail::fail_point;
use fleetlog_event::{Reason, TimestampMs, partition_of};
use fleetlog_projection::{
    Admission, Batch, Commit, LaneCore, LaneId, Projected, Projection, Record, RefusedAt, RowChange, Rulings,
    SetAside, Sink, Taken, UnitOfWork, Writes,
    mutant::{Mutant, on},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    EngineConfig, Failure, InboxFeed,
    fault::Interrupt,
    halting::Halting,
    inbox::Inbox,
    intake::{LaneFeed, Taking},
    metrics::LaneMetrics,
    ports::{DeadLetters, Schemas},
    status::{Counts, LaneState, LaneStatus, ProjectionStatus},
};

use ahead::{Adding, Ahead, Flight, Landed, Round, Source, Tally, offsets};
pub(crate) use breaker::{Breaker, Limits, Trip};
pub(crate) use headers::HeadersWanted;
use orders::{Ordered, Orders};
use round::Pace;
pub(crate) use start::SharedLogs;
pub(crate) use telling::Telling;

/// What the lanes of one projection share.
pub(crate) struct Shared<P, S, C> {
    pub(crate) projection: P,
    pub(crate) sink: S,
    pub(crate) schemas: C,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) logs: SharedLogs,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) config: Arc<EngineConfig>,
    /// The consumer group, for dead letters.
    pub(crate) group: String,
    pub(crate) status: Arc<ProjectionStatus>,
    /// What is known of halts, and where a lane tells that its breaker tripped.
    pub(crate) halting: Halting,
    /// Told why this projection stops.
    pub(crate) fail: Box<dyn Fn(Failure) + Send + Sync>,
}

/// One lane.
pub(crate) struct Lane<P, S, C> {
    pub(crate) shared: Arc<Shared<P, S, C>>,
    pub(crate) lane: LaneId,
    pub(crate) dedup_span_offsets: i64,
    pub(crate) feed: LaneFeed,
    /// Of its commands, by physical name.
    pub(crate) inbox_topic: String,
    /// What lies of them before the lane; none until it began.
    pub(crate) inbox: Mutex<Option<Arc<InboxFeed>>>,
    pub(crate) status: Arc<LaneStatus>,
    pub(crate) metrics: LaneMetrics,
    pub(crate) telling: Telling,
    pub(crate) headers: HeadersWanted,
    pub(crate) stop: CancellationToken,
}

/// What a lane knows between two readings of its progress; dropped as a whole when the chain is broken.
pub(crate) struct Work<P: Projection, D> {
    core: LaneCore,
    cache: P::Cache,
    ahead: Ahead<P, D>,
    /// What is being written: as long as there is one, a write of it is under way, or about to be.
    round: Option<Round<P, D>>,
    flight: Option<Flight<P::Write, D>>,
    /// When the next write begins.
    pace: Pace,
    /// Commands on their way.
    orders: Orders<P, D>,
    /// What the cache takes of memory.
    cached_bytes: usize,
    /// When to look at the link, or to write a move over markers.
    idle_at: Instant,
    /// Whether too much is set aside.
    breaker: Breaker,
}

impl<P: Projection, D> Work<P, D> {
    /// What is projected, cached and under way takes of memory.
    fn held_bytes(&self) -> usize {
        let flying = self.flight.as_ref().map_or(0, |flight| flight.tally.write_bytes);
        let waiting = self.round.as_ref().map_or(0, |round| round.ahead.tally.write_bytes);
        self.cached_bytes + self.ahead.tally.write_bytes + waiting + flying
    }

    /// Whether everything that was taken is written.
    fn is_all_written(&self) -> bool {
        self.flight.is_none() && self.round.is_none() && self.ahead.is_empty()
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Works until it is stopped, or something permanent stops its projection.
    pub(crate) async fn run(self: Arc<Self>) {
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

    /// Takes and projects batches while a write is under way; when it is back, the next one goes out with all that
    /// was projected meanwhile: low latency when quiet, large writes under load.
    async fn work(self: &Arc<Self>, work: &mut Work<P, C::Decode>) -> Interrupt {
        loop {
            let room = self.room(work);
            let Work { core, flight, idle_at, ahead, pace, orders, .. } = &mut *work;
            let (flying, holding) = (flight.is_some(), flight.is_none() && !ahead.is_empty());
            let can_take = !orders.want_rest(core) && (!(flying || holding) || !room.is_none());
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => Next::Stop,
                landed = landing(flight) => Next::Landed(Box::new(landed)),
                ordered = self.ordered(orders) => Next::Ordered(ordered),
                taking = self.feed.take(core.cursor(), room.events, room.bytes), if can_take => Next::Taking(taking),
                () = tokio::time::sleep_until(pace.look_at()), if holding => Next::Due,
                () = tokio::time::sleep_until(*idle_at), if !flying && !holding => Next::Idle,
            };
            let done = match next {
                Next::Stop => Err(Interrupt::Stopped),
                Next::Landed(landed) => self.landed(work, *landed).await,
                Next::Ordered(ordered) => self.take_order(work, ordered),
                Next::Taking(Taking::Batch(batch)) => self.step(work, batch).await,
                Next::Taking(Taking::OutOfRange) => {
                    Err(Interrupt::Restart("an offset does not exist any more".into()))
                }
                Next::Due => Ok(()),
                Next::Idle => self.idle(work).await,
            };
            let done = match done {
                Ok(()) => self.see_to_orders(work).await,
                Err(interrupt) => Err(interrupt),
            };
            match done.and_then(|()| self.launch(work)) {
                Ok(()) => {}
                // Nothing is wrong: what is under way finishes, or else it would be another's write on the chain when it came
                // later. What was projected ahead is read again.
                Err(interrupt @ (Interrupt::Stopped | Interrupt::Again(_))) => {
                    return self.land(work).await.err().unwrap_or(interrupt);
                }
                Err(interrupt) => return interrupt,
            }
        }
    }

    /// The heart: drop what is stale or a duplicate → read states → project → dead letters acknowledged; then
    /// [`Self::launch`] commits on the chain, and [`Self::landed`] acknowledges.
    async fn step(self: &Arc<Self>, work: &mut Work<P, C::Decode>, batch: Batch) -> Result<(), Interrupt> {
        let bytes = batch.records.iter().map(Record::size_bytes).sum::<usize>();
        self.shared.status.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let batch = work.orders.before_skips(batch);
        let event_id = |record: &Record| self.shared.schemas.event_id(record.value.as_deref());
        let admission = work.core.admit(batch, event_id);
        let Admission::Take(taken) = admission.map_err(|lost| Interrupt::Permanent(lost.to_string()))? else {
            self.feed.read_from(work.core.cursor());
            return Ok(());
        };
        if taken.records.is_empty() {
            return self.move_silently(work).await;
        }
        fail_point!("step.admitted");
        let fresh = taken.fresh();
        let decoded: &[&Record] = if P::READS_EVENTS { &fresh } else { &[] };
        let decode = tokio::select! {
            biased;
            decode = self.persist("looking up schemas", || self.shared.schemas.prepare(decoded)) => decode?,
            () = self.skip_ordered() => return Err(Interrupt::Again("a position is to be skipped".into())),
        };
        self.read_states(work, &fresh).await?;
        fail_point!("step.states-read");
        let projected = self.project(work, &taken, work.core.rulings(), &decode)?;
        fail_point!("step.projected");
        self.check_flood(work, fresh.len(), &projected.set_aside)?;
        self.publish(work, &projected.set_aside).await?;
        let Work { ahead, cache, cached_bytes, .. } = work;
        let (writes, rows_max) =
            (Self::writes_of(), self.shares().write_bytes / size_of::<RowChange<P::Write>>());
        let how = Adding { writes, rows_max };
        let grown = ahead.add(&self.shared.projection, cache, Source { taken, decode }, projected, how);
        *cached_bytes = cached_bytes.saturating_add_signed(grown);
        self.want_headers(work.core.cursor());
        Ok(())
    }

    fn fly(
        self: &Arc<Self>,
        mut unit: UnitOfWork<P::Write>,
        sources: Vec<Source<C::Decode>>,
        tally: Tally,
    ) -> Flight<P::Write, C::Decode> {
        let lane = Arc::clone(self);
        let write = async move {
            let outcome = lane.commit(&mut unit).await;
            Landed { unit, outcome }
        };
        Flight::start(write, sources, tally)
    }

    /// Waits for the write under way, if there is one.
    async fn land(self: &Arc<Self>, work: &mut Work<P, C::Decode>) -> Result<(), Interrupt> {
        while let Some(flight) = &mut work.flight {
            let landed = flight.landed().await;
            self.landed(work, landed).await?;
        }
        Ok(())
    }

    /// A write is back: what it did is counted and acknowledged. What the store refused is set aside, and the rest
    /// projected and written again.
    async fn landed(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        landed: Result<Landed<P::Write>, Interrupt>,
    ) -> Result<(), Interrupt> {
        let Some(Flight { sources, tally, .. }) = work.flight.take() else { return Ok(()) };
        let Landed { unit, outcome } = landed?;
        match outcome? {
            Commit::Applied | Commit::AlreadyApplied => {
                work.core.written(unit.leaves, unit.progress);
                work.orders.note(&unit.set_aside);
                fail_point!("step.committed");
                self.count(&tally, &unit);
                self.moved(work);
            }
            Commit::Refused(at) => {
                let flight = self.without_refused(work, unit, at, sources, tally).await?;
                work.flight = Some(flight);
            }
        }
        Ok(())
    }

    /// The same write without what the store refused of it.
    async fn without_refused(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        unit: UnitOfWork<P::Write>,
        refused: Vec<RefusedAt>,
        sources: Vec<Source<C::Decode>>,
        tally: Tally,
    ) -> Result<Flight<P::Write, C::Decode>, Interrupt> {
        let refused: BTreeMap<i64, String> = refused.into_iter().map(|at| (at.offset, at.detail)).collect();
        let known: BTreeSet<i64> = unit.set_aside.iter().map(|aside| aside.record.offset).collect();
        if sources.is_empty() || refused.keys().all(|offset| known.contains(offset)) {
            let what = "the store refuses nothing that could be set aside; this is a bug of the sink";
            return Err(Interrupt::Permanent(format!("lane {}: {what}", self.lane)));
        }
        let mut rulings = work.core.rulings().clone();
        let before = unit.set_aside.iter().filter(|aside| aside.reject.reason == Reason::RefusedByStore);
        rulings.refused = before.map(|aside| (aside.record.offset, aside.reject.detail.clone())).collect();
        rulings.refused.extend(refused);
        let mut writes = Writes::default();
        for Source { taken, decode } in &sources {
            let projected = self.project(work, taken, &rulings, decode)?;
            writes.rows.extend(projected.rows);
            writes.set_aside.extend(projected.set_aside);
        }
        // What was set aside in batches without a row has no source here, and stays.
        let covered = |aside: &SetAside| {
            sources.iter().any(|source| {
                let (first, last) = offsets(&source.taken);
                (first..=last).contains(&aside.record.offset)
            })
        };
        writes.set_aside.extend(unit.set_aside.into_iter().filter(|aside| !covered(aside)));
        let new: Vec<SetAside> =
            writes.set_aside.iter().filter(|aside| !known.contains(&aside.record.offset)).cloned().collect();
        self.check_refused(work, &new)?;
        self.publish(work, &new).await?;
        let unit = work.core.unit_to(unit.progress, writes, now());
        Ok(self.fly(unit, sources, tally))
    }

    /// Reads the states that the batch needs and the cache lacks.
    async fn read_states(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        fresh: &[&Record],
    ) -> Result<(), Interrupt> {
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
        // Beside a write of our own the link read could be any of its parts'.
        self.land(work).await?;
        let stored = self.persist("reading states", || sink.read(&self.lane, &homes)).await?;
        self.check_link(work, stored.link)?;
        for (key, state) in keys.into_iter().zip(stored.states) {
            let admitted = projection.admit(&mut work.cache, &scope, key, state);
            work.cached_bytes +=
                admitted.map_err(|bad| Interrupt::Permanent(format!("lane {}: {bad}", self.lane)))?;
        }
        Ok(())
    }

    /// Projects a batch.
    fn project(
        &self,
        work: &Work<P, C::Decode>,
        taken: &Taken,
        rulings: &Rulings,
        decode: &C::Decode,
    ) -> Result<Projected<P::Write, P::Pending>, Interrupt> {
        let (first, last) = offsets(taken);
        let (projection, fresh) = (&self.shared.projection, taken.fresh());
        self.caught(format_args!("a batch of offsets {first} to {last}"), || {
            projection.project(work.core.scope(), decode, &fresh, rulings, &work.cache)
        })
    }

    /// Calls what is pure, but somebody's code: a panic in it is a bug, stops the projection, and sets nothing aside.
    fn caught<T>(&self, of: impl std::fmt::Display, call: impl FnOnce() -> T) -> Result<T, Interrupt> {
        std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Interrupt::Permanent(format!(
                "lane {}: the projector panicked on {of}: {said}; this is a bug of `{}`, no event was set aside",
                self.lane, self.lane.projection
            ))
        })
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

    /// Over transaction markers and records below progress: written at once if that was not done lately.
    async fn move_silently(&self, work: &mut Work<P, C::Decode>) -> Result<(), Interrupt> {
        if work.is_all_written() && work.core.moved_silently() && Instant::now() >= work.idle_at {
            return self.idle(work).await;
        }
        Ok(())
    }

    /// Every second of quiet: a pending move over markers is written, else the link is looked at, so that a lost
    /// tail or another owner is noticed.
    async fn idle(&self, work: &mut Work<P, C::Decode>) -> Result<(), Interrupt> {
        if work.core.moved_silently() {
            let mut unit = work.core.unit(Writes::default(), now());
            // An empty write has no rows that could be refused.
            self.commit(&mut unit).await?;
            work.core.written(unit.leaves, unit.progress);
            self.moved(work);
        } else if !on(Mutant::IdleLinkNotRead) {
            let stored =
                self.persist("looking at the link", || self.shared.sink.read(&self.lane, &[])).await?;
            self.check_link(work, stored.link)?;
        }
        work.idle_at = Instant::now() + self.shared.config.idle_interval();
        self.telling.rest(&self.lane, Instant::now().into_std());
        Ok(())
    }

    /// Progress was written.
    fn moved(&self, work: &mut Work<P, C::Decode>) {
        let main = work.core.progress().main;
        self.feed.acknowledge(main);
        self.status.set_progress(work.core.progress());
        self.metrics.progress.set(main);
        let held_bytes = self.feed.held_bytes() + work.held_bytes();
        self.metrics.buffered_bytes.set(i64::try_from(held_bytes).unwrap_or(i64::MAX));
        if let Some(end) = self.status.end() {
            self.metrics.lag.set((end - main).max(0));
        }
        work.idle_at = Instant::now() + self.shared.config.idle_interval();
    }

    fn count(&self, tally: &Tally, unit: &UnitOfWork<P::Write>) {
        let (events, set_aside) = (tally.recorded_at.len() as u64, unit.set_aside.len() as u64);
        self.metrics.events.inc_by(events);
        self.metrics.duplicates.inc_by(tally.duplicates);
        // A piece of a round counts with the last one.
        let is_batch = events + tally.duplicates > 0;
        if is_batch {
            self.metrics.batch_events.observe(events as f64);
        }
        let (visible, at) = (self.metrics.visible_seconds.local(), now().0);
        for recorded_at in &tally.recorded_at {
            visible.observe((at - recorded_at.0).max(0) as f64 / 1000.0);
        }
        visible.flush();
        self.entered(&unit.set_aside);
        let Counts { events: e, duplicates: d, set_aside: s, batches: b, .. } = &self.shared.status.counts;
        for (counter, by) in [(e, events), (d, tally.duplicates), (s, set_aside), (b, u64::from(is_batch))] {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Says what was set aside, and counts it.
    fn entered(&self, set_aside: &[SetAside]) {
        self.telling.set_aside(&self.lane, set_aside, Instant::now().into_std());
        set_aside.iter().for_each(|aside| self.metrics.set_aside(aside.reject.reason.as_str()));
    }
}

/// What a lane does next.
enum Next<P: Projection, D> {
    Stop,
    Landed(Box<Result<Landed<P::Write>, Interrupt>>),
    Ordered(Ordered<P, D>),
    Taking(Taking),
    /// A write that was held may be due.
    Due,
    Idle,
}

/// Waits for the write under way; for ever if there is none.
async fn landing<W: Send + 'static, D>(flight: &mut Option<Flight<W, D>>) -> Result<Landed<W>, Interrupt> {
    match flight {
        Some(flight) => flight.landed().await,
        None => std::future::pending().await,
    }
}

/// The wall clock: for ledger entries, dead letters and halts, never for a projection.
pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
