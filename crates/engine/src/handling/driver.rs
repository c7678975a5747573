//! The poll thread of a handler: it owns the consumer and the dispatcher, hears what happened, and does what is to be done.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use fleetlog_event::{Recorded, Reject, ops::CircuitState};
use fleetlog_handler::{Action, At, Change, Destination, Dispatcher, Handler, LaneId};
use fleetlog_projection::{LogNow, Record};
use tokio::{runtime::Handle, task::AbortHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Shared,
    carried::Carried,
    lanes::{COMMIT_AGAIN, Leaving},
    mutants,
    tasks::Calling,
    told::{Teller, Told},
};
use crate::{
    CommitError, EndOfMembership, Intake, LaneAt, Polled, RebalanceEvent, lane::Breaker, ports::Schemas,
    status::LaneStatus,
};

/// How long it waits at most for being told something: also how often it polls where nothing wakes it, for
/// `max.poll.interval.ms` and the client's callbacks.
const IDLE: Duration = Duration::from_millis(500);
/// Records taken between two looks at what was told.
const POLLS_PER_ROUND: usize = 256;
/// After how long a commit that nothing was heard of counts as refused.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How a poll thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DriverEnd {
    /// It was asked to.
    Stopped,
    /// Something permanent.
    Failed(String),
    /// Somebody joined under its name.
    Replaced(String),
}

/// A lane that this member has.
pub(super) struct Entry {
    pub(super) log: Option<LogNow>,
    pub(super) status: Arc<LaneStatus>,
}

type Carrying<E> = Dispatcher<Arc<Carried>, Recorded<E>>;

pub(super) struct Driver<I, H: Handler, C> {
    pub(super) shared: Arc<Shared<H, C>>,
    pub(super) intake: I,
    pub(super) dispatcher: Carrying<H::Event>,
    pub(super) tell: Teller<H::Event>,
    told: Receiver<Told<H::Event>>,
    pub(super) runtime: Handle,
    pub(super) lanes: BTreeMap<LaneAt, Entry>,
    /// Lanes that are to be read from there: it was not possible yet.
    pub(super) seeks: BTreeMap<LaneAt, i64>,
    pub(super) leaving: Option<Leaving>,
    pub(super) calls: HashMap<At, AbortHandle>,
    /// A commit is under way since then.
    commits_since: Option<Instant>,
    /// There may be more to poll.
    is_readable: bool,
    stop: CancellationToken,
    /// It was asked to stop; what is under way may take until then.
    drains_until: Option<Instant>,
    pub(super) end: Option<DriverEnd>,
    trouble: Option<String>,
    /// What the last call that failed failed of.
    last_failure: String,
    /// Counts dead letters against what is handled.
    breaker: Breaker,
    /// It tripped: nothing more is set aside.
    is_halted: bool,
}

impl<I: Intake, H: Handler, C: Schemas> Driver<I, H, C> {
    pub(super) fn new(
        shared: Arc<Shared<H, C>>,
        intake: I,
        (tell, told): (Teller<H::Event>, Receiver<Told<H::Event>>),
        runtime: Handle,
        stop: CancellationToken,
    ) -> Self {
        Self {
            dispatcher: Dispatcher::new(shared.dispatcher_settings()),
            breaker: shared.halting.breaker(&shared.config),
            shared,
            intake,
            tell,
            told,
            runtime,
            lanes: BTreeMap::new(),
            seeks: BTreeMap::new(),
            leaving: None,
            calls: HashMap::new(),
            commits_since: None,
            is_readable: true,
            stop,
            drains_until: None,
            end: None,
            trouble: None,
            last_failure: String::new(),
            is_halted: false,
        }
    }

    /// Until it is asked to stop, or something ends it. Then what is under way ends, up to the deadline, and what is done is
    /// committed. The consumer is handed back: closing it is for whoever has time.
    pub(super) fn run(mut self) -> (DriverEnd, I) {
        let tell = self.tell.clone();
        self.intake.on_readable(Box::new(move || tell.wake()));
        while !self.is_over() {
            self.hear();
            self.poll();
            self.seek();
            self.give_up();
            self.act();
        }
        self.close();
        (self.end.unwrap_or(DriverEnd::Stopped), self.intake)
    }

    fn is_over(&mut self) -> bool {
        if matches!(self.end, Some(DriverEnd::Replaced(_))) {
            return true;
        }
        if self.drains_until.is_none() && (self.stop.is_cancelled() || self.end.is_some()) {
            self.dispatcher.stop();
            self.drains_until = Some(Instant::now() + self.shared.config.drain_deadline());
        }
        let Some(until) = self.drains_until else { return false };
        let left = self.dispatcher.in_flight_len();
        let is_late = Instant::now() >= until;
        if is_late && left > 0 {
            warn!(
                handler = self.shared.id,
                "{left} records under way given up at the deadline; they come again"
            );
        }
        left == 0 || is_late
    }

    /// Waits until something is told, is due, or may be polled; then takes everything that was told.
    fn hear(&mut self) {
        let first = self.told.recv_timeout(self.waits_for());
        self.tell.looks();
        let mut next = first.ok();
        while let Some(told) = next {
            self.heard(told);
            next = self.told.try_recv().ok();
        }
    }

    fn waits_for(&self) -> Duration {
        if self.is_readable {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let deadline = self.leaving.as_ref().map(|leaving| leaving.until).or(self.drains_until);
        let deadline = deadline.map(|until| until.saturating_duration_since(now));
        // Neither a seek nor a commit that is put off is told when it can be done.
        let retry = (!self.seeks.is_empty() || self.leaving.is_some()).then_some(COMMIT_AGAIN);
        self.dispatcher.wakes_in(now).into_iter().chain(deadline).chain(retry).fold(IDLE, Duration::min)
    }

    fn heard(&mut self, told: Told<H::Event>) {
        match told {
            Told::Woken => self.is_readable = true,
            Told::Prepared(prepared) => {
                for (at, prepared) in prepared {
                    self.dispatcher.prepared(at, prepared);
                }
            }
            Told::Ended(at, result, now) => {
                self.calls.remove(&at);
                match &result {
                    Ok(()) => self.count(at, None),
                    Err(error) => self.last_failure = error.to_string(),
                }
                self.dispatcher.ended(at, result, now);
            }
            Told::Sent(at) => self.dispatcher.sent(at),
            Told::Heard(lane, stamp, now) => self.dispatcher.heard(lane, stamp, now),
            Told::Found(lanes, facts, committed) => self.found(&lanes, &facts, &committed),
            Told::Failed(why) => self.fails(why),
        }
    }

    /// Counts what was handled, or is to be a dead letter: where too much is, the handler is halted.
    fn count(&mut self, at: At, reject: Option<&Reject>) {
        if let Err(trip) = self.breaker.count(1, usize::from(reject.is_some()))
            && !self.is_halted
        {
            self.is_halted = true;
            let halt = self.shared.tripped(trip, self.dispatcher.record(at), reject);
            self.fails(halt.state());
        }
    }

    /// The first reason counts.
    pub(super) fn fails(&mut self, why: String) {
        self.shared.alarm.raise();
        self.end.get_or_insert(DriverEnd::Failed(why));
    }

    /// Takes what there is to read, for a while.
    fn poll(&mut self) {
        // The client may answer a callback with nothing, although more is there: asked twice it is sure.
        let mut nothing = 0;
        self.is_readable = false;
        for _ in 0..POLLS_PER_ROUND {
            match self.intake.poll(Duration::ZERO) {
                Polled::Nothing if nothing == 0 => nothing += 1,
                Polled::Nothing => return,
                polled => {
                    nothing = 0;
                    self.polled(polled);
                }
            }
        }
        self.is_readable = true;
    }

    fn polled(&mut self, polled: Polled) {
        match polled {
            Polled::Nothing => {}
            Polled::Record(at, record) => {
                self.recovered();
                self.read(at, record);
            }
            Polled::End(partition) => {
                self.recovered();
                self.ended(partition);
            }
            Polled::Rebalance(RebalanceEvent::Assigned(lanes)) => self.assigned(lanes),
            Polled::Rebalance(RebalanceEvent::Revoked { lanes, lost }) => self.revoked(lanes, lost),
            Polled::OutOfRange => self.look_again(),
            Polled::Committed(offsets, answer) => self.committed(&offsets, answer),
            Polled::Trouble(what) => self.in_trouble(what),
            Polled::Over(EndOfMembership::Failed(failure)) => self.fails(failure.what),
            Polled::Over(EndOfMembership::Replaced(what)) => self.end = Some(DriverEnd::Replaced(what)),
        }
    }

    fn read(&mut self, at: LaneAt, record: Record) {
        if self.seeks.contains_key(&at) {
            return;
        }
        let Some(log) = self.lanes.get(&at).and_then(|entry| entry.log) else { return };
        let incoming = self.shared.incoming(at, record, &log);
        self.dispatcher.read(lane_id(at), incoming);
    }

    /// The client does not say of which topic the partition was read to its end, and need not: below a position everything was
    /// delivered, whichever lane it is.
    fn ended(&mut self, partition: i32) {
        for at in self.lanes.keys().filter(|at| at.partition == partition) {
            if let Some(position) = self.intake.position(*at).filter(|_| !self.seeks.contains_key(at)) {
                self.dispatcher.read_to_end(lane_id(*at), position);
            }
        }
    }

    /// Carries out seeks; one that is not possible yet is tried again in the next round.
    fn seek(&mut self) {
        for (at, offset) in std::mem::take(&mut self.seeks) {
            if !self.lanes.contains_key(&at) {
                continue;
            }
            if let Err(failure) = self.intake.seek(at, offset) {
                debug!(handler = self.shared.id, partition = at.partition, %failure, "seek put off");
                self.seeks.insert(at, offset);
                continue;
            }
            self.shared.status.lane_paused(at, false);
            self.is_readable = true;
        }
    }

    fn act(&mut self) {
        let now = Instant::now();
        if self.commits_since.is_some_and(|since| now.duration_since(since) > COMMIT_TIMEOUT) {
            self.commits_since = None;
            self.dispatcher.committed(&[]);
        }
        let mut unknown = Vec::new();
        for action in self.dispatcher.act(now) {
            self.carry_out(action, now, &mut unknown);
        }
        if !unknown.is_empty() {
            self.runtime.spawn(Arc::clone(&self.shared).prepare(self.tell.clone(), unknown));
        }
        self.shared.figures.in_flight.set(i64::try_from(self.dispatcher.in_flight_len()).unwrap_or(i64::MAX));
    }

    fn carry_out(
        &mut self,
        action: Action<Arc<Carried>, Recorded<H::Event>>,
        now: Instant,
        unknown: &mut Vec<(At, Arc<Carried>)>,
    ) {
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        match action {
            Action::Prepare(at, carried) => unknown.push((at, carried)),
            Action::Call { at, event, failed_calls, newest_offset } => {
                let Some(carried) = self.dispatcher.record(at).cloned() else { return };
                if let Some(late) = self.dispatcher.late_by(at, now) {
                    shared.figures.late(late);
                }
                let calling = Calling { at, event, carried, failed_calls, newest_offset };
                self.calls.insert(at, self.runtime.spawn(shared.call(tell, calling)).abort_handle());
            }
            Action::Send(at, destination) => {
                if let Destination::DeadLetter { reject, .. } = &destination {
                    self.count(at, Some(reject));
                    if self.is_halted {
                        return self.dispatcher.put_back(at);
                    }
                }
                let Some(carried) = self.dispatcher.record(at).cloned() else { return };
                self.runtime.spawn(shared.send(tell, at, carried, destination));
            }
            Action::AskTime(lane) => drop(self.runtime.spawn(shared.ask_time(tell, lane))),
            Action::Pause(lane) => {
                self.intake.pause(lane_at(lane));
                shared.status.lane_paused(lane_at(lane), true);
            }
            Action::Resume(lane, from) => drop(self.seeks.insert(lane_at(lane), from)),
            Action::Commit(offsets) => {
                self.commits_since = Some(now);
                let offsets: Vec<(LaneAt, i64)> = mutants::committed(offsets, &self.dispatcher)
                    .into_iter()
                    .map(|(lane, offset)| (lane_at(lane), offset))
                    .collect();
                self.intake.commit(&offsets);
            }
            Action::Changed(change) => self.circuit_changed(change),
            Action::Stop(why) => self.fails(why),
        }
    }

    fn committed(&mut self, offsets: &[(LaneAt, i64)], answer: Result<(), CommitError>) {
        self.commits_since = None;
        fail::fail_point!("handler.committed");
        let Err(error) = answer else {
            let taken: Vec<(LaneId, i64)> =
                offsets.iter().map(|(at, offset)| (lane_id(*at), *offset)).collect();
            self.dispatcher.committed(&taken);
            return self.tell_progress();
        };
        debug!(handler = self.shared.id, %error, "offsets not committed; tried again");
        self.dispatcher.committed(&[]);
    }

    fn circuit_changed(&mut self, change: Change) {
        self.shared.figures.circuit(change);
        let (handler, settings) = (&self.shared.id, &self.shared.settings.circuit);
        let (open_ms, last) = (settings.open.as_millis(), &self.last_failure);
        let tell = |state, detail: &str| self.shared.circuitry.tell(self.shared.whose(), state, detail);
        match change {
            Change::Opened => {
                let why = format!(
                    "more than {} calls failed one after the other, the last of: {last}",
                    settings.failures_max
                );
                warn!(handler, open_ms, "{why}: the circuit is open, and what comes is held");
                tell(CircuitState::Open, &why);
            }
            Change::OpenedAgain => {
                warn!(handler, open_ms, "a trial failed ({last}): the circuit is open again");
            }
            Change::Closed => {
                info!(handler, "all trials were answered: the circuit is closed");
                tell(CircuitState::Closed, "all trials were answered");
            }
        }
    }

    fn in_trouble(&mut self, what: String) {
        if self.trouble.as_ref() != Some(&what) {
            warn!(handler = self.shared.id, "consumer: {what}; waiting");
            self.shared.status.set_trouble(Some(what.clone()));
            self.trouble = Some(what);
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            info!(handler = self.shared.id, "consumer: reading again");
            self.shared.status.set_trouble(None);
        }
    }
}

pub(super) fn lane_id(at: LaneAt) -> LaneId {
    LaneId { topic: at.topic, partition: at.partition }
}

pub(super) fn lane_at(lane: LaneId) -> LaneAt {
    LaneAt { topic: lane.topic, partition: lane.partition }
}
