//! What follows from each action.

use std::sync::Arc;

use fleetlog_event::{Reason, TimestampMs};
use fleetlog_projection::{
    Admission, Batch, Due, LaneCore, Projected, SetAside, Taken, UnitOfWork, Writes,
    memory::World,
    mutant::{Mutant, on},
    parts::{Sending, Sent},
};

use crate::{
    action::{Action, Who},
    code::{Cache, Write},
    flight::{Flight, Landed, cut},
    owner::{Ahead, Committing, Made, Owner, Phase, Round, Work},
    properties::Finding,
    system::{State, System},
};

impl System {
    /// Carries out an action.
    ///
    /// # Panics
    /// When it is not one that can happen in this state.
    pub(crate) fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Begin(who) => self.begin(state, who),
            Action::Prove(who) => Self::go_on(state, who),
            Action::Take(who, count) => {
                let batch = self.fetch(&mut state.owners[who], count);
                self.take(state, who, batch);
            }
            Action::TakePrefetched(who) => {
                let batch = state.owners[who].feed.prefetched.take().expect("prefetched");
                self.take(state, who, batch);
            }
            Action::Prefetch(who, count) => {
                let owner = &mut state.owners[who];
                owner.feed.prefetched = Some(self.fetch(owner, count));
            }
            Action::Idle(who) => self.idle(state, who),
            Action::CarryOut(who) => self.carry_out(state, who),
            Action::ReadStates(who) => self.read_states(state, who),
            Action::Publish(who) => self.publish(state, who),
            Action::LetterLands(who) => {
                let letters = std::mem::take(&mut state.owners[who].airborne);
                state.letters.extend(letters);
            }
            Action::Land(who) => self.land(state, who),
            Action::Answer(who) => self.answer(state, who),
            Action::LandLate(index) => self.land_late(state, index),
            Action::Revoked(who) => {
                let flight = state.owners[who].end();
                Self::goes_on_alone(state, flight);
            }
            Action::Timeout(_) | Action::Crash(_) | Action::Rebalance | Action::Keep | Action::Lose => {
                self.strike(state, &action);
            }
        }
    }

    fn strike(&self, state: &mut State, fault: &Action) {
        match *fault {
            Action::Timeout(who) => {
                state.left.timeouts -= 1;
                let committing = state.owners[who].committing.as_mut();
                let before = committing.expect("only a commit times out").send_again();
                Self::goes_on_alone(state, Some(before));
            }
            Action::Crash(who) => {
                state.left.crashes -= 1;
                let flight = state.owners[who].end();
                Self::goes_on_alone(state, flight);
                if state.group == who {
                    state.owners[who].phase = Phase::Start { fenced: false };
                }
            }
            Action::Rebalance => {
                state.left.rebalances -= 1;
                state.group = 1 - state.group;
                // Whoever has a lane still, from the time before last, is told that first.
                let flight = state.owners[state.group].end();
                Self::goes_on_alone(state, flight);
                state.owners[state.group].phase = Phase::Start { fenced: false };
            }
            Action::Keep => state.kept = Some(Arc::clone(&state.world)),
            Action::Lose => {
                state.left.losses -= 1;
                state.world = state.kept.take().unwrap_or_default();
            }
            _ => unreachable!("{fault:?} is no fault"),
        }
    }

    /// What was sent may still arrive, in order, though nobody waits for it.
    fn goes_on_alone(state: &mut State, flight: Option<Flight>) {
        state.late.extend(flight.filter(|flight| !flight.has_landed()));
    }

    fn begin(&self, state: &mut State, who: Who) {
        let Phase::Start { fenced } = state.owners[who].phase else { unreachable!("it begins once") };
        let stored = state.world.read(&self.lane, &[]);
        let reuse = fenced && on(Mutant::NonceReused);
        let nonce = if reuse { state.owners[who].nonce } else { state.fresh_nonce(&self.lane) };
        let started =
            LaneCore::start(self.lane.clone(), &stored, &self.now, self.scene.dedup_span_offsets, nonce);
        let Ok(core) = started else { return Self::stop(state, who) };
        let mut work = Work { core, cache: Cache::default(), ahead: Ahead::default(), round: None };
        let owner = &mut state.owners[who];
        owner.nonce = nonce;
        if let Some(survivor) = owner.survivor.take() {
            outlive(&mut work, survivor);
        }
        owner.phase = Phase::Proving(Arc::new(work));
        if !fenced || on(Mutant::OwnershipNotProved) {
            if fenced && state.group != who {
                state.find(Finding::Trespassed);
            }
            Self::go_on(state, who);
        }
    }

    fn go_on(state: &mut State, who: Who) {
        let owner = &mut state.owners[who];
        let Phase::Proving(work) = std::mem::replace(&mut owner.phase, Phase::Out) else {
            unreachable!("it goes on from its start")
        };
        // What was prefetched stays: the intake throws it away, but a lane must not rely on that.
        owner.feed.next = work.core.cursor();
        owner.phase = Phase::Idle(work);
    }

    /// Something permanent: the finding is that it came to that.
    fn stop(state: &mut State, who: Who) {
        state.find(Finding::Stopped);
        let flight = state.owners[who].end();
        Self::goes_on_alone(state, flight);
    }

    fn fenced(state: &mut State, who: Who) {
        let owner = &mut state.owners[who];
        if on(Mutant::CacheKept) || on(Mutant::DedupLearnsEarly) {
            owner.survivor = owner.work().cloned();
        }
        // Everything ahead goes with it.
        owner.phase = Phase::Start { fenced: true };
    }

    /// Up to `count` offsets: records, or the marker behind the last.
    fn fetch(&self, owner: &mut Owner, count: usize) -> Batch {
        let begin = owner.feed.next;
        let end = begin + i64::try_from(count).expect("a short log");
        let records = self.records().iter().filter(|record| (begin..end).contains(&record.offset));
        let batch = Batch { begin, records: records.cloned().collect(), next: end.min(self.now.high) };
        owner.feed.next = batch.next;
        batch
    }

    fn take(&self, state: &mut State, who: Who, batch: Batch) {
        let mut work = Self::idle_work(state, who);
        let event_id = |record: &fleetlog_projection::Record| {
            fleetlog_event::Decode::event_id(&self.log.0, record.value.as_deref())
        };
        let taken = match Arc::make_mut(&mut work).core.admit(batch, event_id) {
            Err(_) => return Self::stop(state, who),
            Ok(Admission::Stale) => {
                let owner = &mut state.owners[who];
                (owner.feed.next, owner.feed.prefetched) = (work.core.cursor(), None);
                owner.phase = Phase::Idle(work);
                return;
            }
            Ok(Admission::Take(taken)) => taken,
        };
        if taken.records.is_empty() {
            state.owners[who].phase = Phase::Idle(work);
            return;
        }
        let (keys, _) = self.codes[who].missing(&work.cache, &taken.fresh());
        if keys.is_empty() {
            self.project(state, who, work, taken);
        } else {
            let link = if self.scene.reads_at_once { None } else { state.world.link(&self.lane) };
            state.owners[who].phase = Phase::Reading { work, taken: Arc::new(taken), link };
        }
    }

    fn idle_work(state: &mut State, who: Who) -> Arc<Work> {
        match std::mem::replace(&mut state.owners[who].phase, Phase::Out) {
            Phase::Idle(work) => work,
            other => unreachable!("{other:?} is not idle"),
        }
    }

    /// Whether an idle lane would do more than find everything as it should be.
    pub(crate) fn idle_would_act(&self, state: &State, work: &Work) -> bool {
        let looks = !on(Mutant::IdleLinkNotRead);
        work.core.moved_silently() || (looks && !work.core.owns(state.world.link(&self.lane)))
    }

    fn idle(&self, state: &mut State, who: Who) {
        let mut work = Self::idle_work(state, who);
        if work.core.moved_silently() {
            let unit = Arc::make_mut(&mut work).core.unit(Writes::default(), TimestampMs(0));
            state.owners[who].phase = Phase::Idle(work);
            self.send(state, who, unit, Vec::new(), true);
        } else {
            state.owners[who].phase = Phase::Idle(work);
            Self::fenced(state, who);
        }
    }

    fn read_states(&self, state: &mut State, who: Who) {
        let Phase::Reading { mut work, taken, link } = state.owners[who].phase.clone() else {
            unreachable!("it reads once")
        };
        let (keys, homes) = self.codes[who].missing(&work.cache, &taken.fresh());
        let states = state.world.read(&self.lane, &homes).states;
        let link = if self.scene.reads_at_once { state.world.link(&self.lane) } else { link };
        if !work.core.owns(link) {
            return Self::fenced(state, who);
        }
        let Work { core, cache, .. } = Arc::make_mut(&mut work);
        for (key, stored) in keys.into_iter().zip(states) {
            if self.codes[who].admit(cache, core.scope(), key, stored).is_err() {
                return Self::stop(state, who);
            }
        }
        self.project(state, who, work, Arc::unwrap_or_clone(taken));
    }

    fn project(&self, state: &mut State, who: Who, work: Arc<Work>, taken: Taken) {
        let (core, fresh) = (&work.core, taken.fresh());
        let Projected { pending, rows, set_aside } =
            self.codes[who].project(core.scope(), &self.log.0, &fresh, core.rulings(), &work.cache);
        let awaits = !set_aside.is_empty();
        let made = Arc::new(Made { pending, rows, set_aside });
        state.owners[who].phase = Phase::Publishing { work, taken: Arc::new(taken), made };
        if !awaits {
            self.publish(state, who);
        }
    }

    /// The dead letters, if there are any, are acknowledged; the batch is added to what is ahead.
    fn publish(&self, state: &mut State, who: Who) {
        let Phase::Publishing { mut work, taken, made } = state.owners[who].phase.clone() else {
            unreachable!("it publishes what it projected")
        };
        let Made { pending, rows, set_aside } = Arc::unwrap_or_clone(made);
        Self::acknowledge(state, who, &set_aside);
        let Work { cache, ahead, .. } = Arc::make_mut(&mut work);
        self.codes[who].fold_ahead(cache, &mut ahead.touched, pending);
        ahead.any = true;
        ahead.set_aside.extend(set_aside);
        if !rows.is_empty() {
            ahead.rows.extend(rows);
            ahead.sources.push(Arc::unwrap_or_clone(taken));
        }
        state.owners[who].phase = Phase::Idle(work);
        self.launch(state, who);
    }

    fn acknowledge(state: &mut State, who: Who, set_aside: &[SetAside]) {
        let offsets = set_aside.iter().map(|aside| aside.record.offset);
        if on(Mutant::DeadLetterNotAwaited) {
            state.owners[who].airborne.extend(offsets);
        } else {
            state.letters.extend(offsets);
        }
    }

    /// Writes the next piece of the round, or begins one with what is ahead, if no write is under way. As `launch` of the
    /// engine, which besides may hold a round back: here one grows for as long as the store lets the write before it wait.
    fn launch(&self, state: &mut State, who: Who) {
        let owner = &mut state.owners[who];
        let Phase::Idle(work) = &mut owner.phase else { return };
        if owner.committing.is_some() || (work.round.is_none() && !work.ahead.any) {
            return;
        }
        let Work { core, cache, ahead, round } = Arc::make_mut(work);
        let Round { reach, ahead: now_due } =
            round.get_or_insert_with(|| Round { reach: core.reach(), ahead: std::mem::take(ahead) });
        // The least a piece can be: one entity.
        let bytes_max = if self.scene.in_pieces { 0 } else { usize::MAX };
        let entities = self.codes[who].changes(cache, &mut now_due.touched, bytes_max);
        let is_last = now_due.touched.is_empty();
        let Ahead { rows, set_aside, .. } = now_due;
        let due = Due { reach: *reach, is_last, rows, set_aside, beyond: &mut ahead.set_aside };
        let unit = core.piece(entities, due, TimestampMs(0));
        let sources = round.take_if(|_| is_last).map(|round| round.ahead.sources).unwrap_or_default();
        if self.scene.forgets {
            self.codes[who].forget(cache);
        }
        self.send(state, who, unit, sources, false);
    }

    pub(crate) fn send(
        &self,
        state: &mut State,
        who: Who,
        mut unit: UnitOfWork<Write>,
        sources: Vec<Taken>,
        is_awaited: bool,
    ) {
        let before = on(Mutant::ProgressBeforeData).then(|| progress_alone(&mut unit));
        let unit = Arc::new(unit);
        let (first, then) = match before {
            Some(before) => (Arc::new(before), Some(unit)),
            None => (unit, None),
        };
        let sending = Sending::default();
        let parts = Arc::new(cut(&first, self.scene.store));
        let flight = Flight::of(first, parts, &sending);
        state.owners[who].committing = Some(Committing { sources, is_awaited, then, sending, flight });
    }

    fn land(&self, state: &mut State, who: Who) {
        let before = Arc::clone(&state.world);
        let committing = state.owners[who].committing.as_mut().expect("only a commit lands");
        let landed = committing.flight.land(&mut state.world, &self.refused);
        self.look(state, &before, landed);
    }

    fn land_late(&self, state: &mut State, index: usize) {
        let before = Arc::clone(&state.world);
        let landed = state.late[index].land(&mut state.world, &self.refused);
        let flight = &state.late[index];
        if flight.has_landed() || !flight.refused.is_empty() {
            state.late.remove(index);
        }
        self.look(state, &before, landed);
    }

    fn look(&self, state: &mut State, before: &World<Write>, landed: Landed) {
        match landed {
            Landed::Taken => self.inspect(state, before),
            Landed::Belied => state.find(Finding::Belied),
            Landed::Nothing => {}
        }
    }

    fn answer(&self, state: &mut State, who: Who) {
        let mut committing = state.owners[who].committing.take().expect("only a commit is answered");
        if !committing.flight.refused.is_empty() {
            return self.without_refused(state, who, committing);
        }
        let (any_taken, last) = committing.flight.replies();
        let parts = Arc::clone(&committing.flight.parts);
        match committing.sending.answered(&parts, parts.len(), any_taken, last) {
            Sent::GoOn => {
                let unit = Arc::clone(&committing.flight.unit);
                committing.flight = Flight::of(unit, parts, &committing.sending);
            }
            // Transient: the lane gives the same unit again.
            Sent::KeepsLosing(_) => drop(committing.send_again()),
            Sent::Fenced(_) => return Self::fenced(state, who),
            Sent::Over(_) => {
                let Some(unit) = committing.then.take() else {
                    let work = state.owners[who].work_mut().expect("whose write is under way");
                    let unit = &committing.flight.unit;
                    Arc::make_mut(work).core.written(unit.leaves, unit.progress);
                    return self.launch(state, who);
                };
                let parts = Arc::new(cut(&unit, self.scene.store));
                committing.send(unit, parts);
            }
        }
        state.owners[who].committing = Some(committing);
    }

    /// The same write without what the store refused of it.
    fn without_refused(&self, state: &mut State, who: Who, committing: Committing) {
        let Committing { sources, flight, .. } = committing;
        let unit = flight.unit;
        let work = state.owners[who].work().expect("whose write is under way").clone();
        let mut rulings = work.core.rulings().clone();
        let before = unit.set_aside.iter().filter(|aside| aside.reject.reason == Reason::RefusedByStore);
        rulings.refused = before.map(|aside| (aside.record.offset, aside.reject.detail.clone())).collect();
        rulings.refused.extend(flight.refused.iter().map(|&offset| (offset, "refused".to_owned())));
        let mut writes = Writes::default();
        for taken in &sources {
            let (scope, fresh) = (work.core.scope(), taken.fresh());
            let made = self.codes[who].project(scope, &self.log.0, &fresh, &rulings, &work.cache);
            writes.rows.extend(made.rows);
            writes.set_aside.extend(made.set_aside);
        }
        let covered = |aside: &&SetAside| {
            sources.iter().flat_map(|taken| &taken.records).any(|record| record.offset == aside.record.offset)
        };
        writes.set_aside.extend(unit.set_aside.iter().filter(|aside| !covered(aside)).cloned());
        Self::acknowledge(state, who, &writes.set_aside);
        let work = state.owners[who].work_mut().expect("whose write is under way");
        let unit = Arc::make_mut(work).core.unit_to(unit.progress, writes, TimestampMs(0));
        self.send(state, who, unit, sources, false);
    }
}

/// As `mutants::before_commit` of the engine: a write of progress alone, which `unit` then follows.
fn progress_alone(unit: &mut UnitOfWork<Write>) -> UnitOfWork<Write> {
    let leaves = unit.leaves.part(u32::MAX);
    let follows = unit.follows.replace(leaves);
    let (entities, rows, set_aside, entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    UnitOfWork { follows, leaves, entities, rows, set_aside, entries, lane: unit.lane.clone(), ..*unit }
}

/// As `mutants::Survivor` of the engine.
fn outlive(work: &mut Work, survivor: Arc<Work>) {
    let mut survivor = Arc::unwrap_or_clone(survivor);
    (survivor.ahead, survivor.round) = (Ahead::default(), None);
    #[cfg(feature = "mutants")]
    work.core.inherit(&mut survivor.core);
    if on(Mutant::CacheKept) {
        std::mem::swap(&mut work.cache, &mut survivor.cache);
    }
}
