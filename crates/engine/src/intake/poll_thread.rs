//! The poll thread: polls, fills lanes' buffers, answers the group, and never waits for a store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use fleetlog_projection::Record;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    CommitError, EndOfMembership, Intake, LaneAt, LaneFeed, LaneTask, Polled, RebalanceEvent,
    buffer::{Command, Incarnation, Space},
    rebalance::LaneEntry,
};
use crate::{EngineConfig, Failure, memory::buffer_bytes_max, status::ProjectionStatus};

/// How long one poll may wait: also how late a command of a lane may be noticed while nothing arrives.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

/// Polls between two looks at commands and the clock.
const POLLS_PER_ROUND: usize = 64;

/// Bytes of records that are handed to a lane in one piece, unless the last of them is larger.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// What a poll thread is made of.
pub(crate) struct PollThreadParts<I> {
    pub(crate) projection: &'static str,
    pub(crate) intake: I,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) runtime: Handle,
    /// Starts a lane.
    pub(crate) spawn: Box<dyn Fn(LaneAt, LaneFeed) -> LaneTask + Send>,
    /// Told when membership is over.
    pub(crate) fail: Box<dyn Fn(Failure) + Send>,
    pub(crate) stop: CancellationToken,
    pub(crate) status: Arc<ProjectionStatus>,
}

/// How a poll thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PollEnd {
    /// It was asked to, or membership is over for good, which was told.
    Stopped,
    /// Somebody joined under its name.
    Replaced(String),
}

/// One projection's poll thread.
pub(crate) struct PollThread<I> {
    pub(super) projection: &'static str,
    pub(super) intake: I,
    pub(super) config: Arc<EngineConfig>,
    pub(super) runtime: Handle,
    pub(super) spawn: Box<dyn Fn(LaneAt, LaneFeed) -> LaneTask + Send>,
    fail: Box<dyn Fn(Failure) + Send>,
    pub(super) stop: CancellationToken,
    pub(super) status: Arc<ProjectionStatus>,
    pub(super) lanes: BTreeMap<LaneAt, LaneEntry>,
    pub(super) incarnations: Incarnation,
    pub(super) commands: Receiver<Command>,
    pub(super) commands_sender: Sender<Command>,
    pub(super) space: Arc<Space>,
    pub(super) lane_bytes_max: Arc<AtomicUsize>,
    gathered: Gathered,
    commit_due: Instant,
    trouble: Option<String>,
    end: PollEnd,
}

/// Records of one lane that were polled and not handed to it yet: what comes in one go is handed over in one.
#[derive(Default)]
struct Gathered {
    at: Option<LaneAt>,
    records: Vec<Record>,
    bytes: usize,
}

impl<I: Intake> PollThread<I> {
    pub(crate) fn new(parts: PollThreadParts<I>) -> Self {
        let PollThreadParts { projection, intake, config, runtime, spawn, fail, stop, status } = parts;
        let (commands_sender, commands) = channel();
        let lane_bytes_max = Arc::new(AtomicUsize::new(config.lane_bytes_max(1)));
        Self {
            projection,
            intake,
            config,
            runtime,
            spawn,
            fail,
            stop,
            status,
            lanes: BTreeMap::new(),
            incarnations: 0,
            commands,
            commands_sender,
            space: Arc::default(),
            lane_bytes_max,
            gathered: Gathered::default(),
            commit_due: Instant::now(),
            trouble: None,
            end: PollEnd::Stopped,
        }
    }

    /// Polls until it is asked to stop; then drains: writes in flight finish, offsets are committed, the consumer
    /// closes. The same when membership is over.
    pub(crate) fn run(mut self) -> PollEnd {
        while !self.stop.is_cancelled() {
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
            self.seek_and_resume();
            self.commit_acknowledged();
            for _ in 0..POLLS_PER_ROUND {
                if !self.poll() {
                    break;
                }
            }
            self.deliver();
        }
        let all: Vec<LaneAt> = self.lanes.keys().copied().collect();
        let is_replaced = matches!(self.end, PollEnd::Replaced(_));
        self.stop_lanes(&all, is_replaced);
        self.end
    }

    /// One poll; whether to go on polling at once.
    fn poll(&mut self) -> bool {
        let waits = self.gathered.records.is_empty();
        let polled = self.intake.poll(if waits { POLL_TIMEOUT } else { Duration::ZERO });
        if !matches!(polled, Polled::Record(..)) {
            self.deliver();
        }
        match polled {
            Polled::Record(at, record) => {
                self.recovered();
                self.gather(at, record);
            }
            Polled::End(partition) => {
                self.recovered();
                self.ended(partition);
            }
            Polled::Nothing => return !waits,
            Polled::Committed(_, Ok(())) => {}
            Polled::Committed(_, Err(error)) => {
                debug!(projection = self.projection, %error, "offsets not committed; lag tools see the next ones");
            }
            Polled::Rebalance(RebalanceEvent::Assigned(lanes)) => self.assigned(&lanes),
            Polled::Rebalance(RebalanceEvent::Revoked { lanes, lost }) => self.revoked(&lanes, lost),
            Polled::OutOfRange => self.lanes.values().for_each(|lane| lane.buffer.out_of_range()),
            Polled::Trouble(what) => {
                self.in_trouble(what);
                return false;
            }
            Polled::Over(end) => {
                match end {
                    EndOfMembership::Failed(failure) => (self.fail)(failure),
                    EndOfMembership::Replaced(what) => self.end = PollEnd::Replaced(what),
                }
                self.stop.cancel();
                return false;
            }
        }
        true
    }

    fn gather(&mut self, at: LaneAt, record: Record) {
        if self.gathered.at != Some(at) || self.gathered.bytes >= GATHERED_BYTES_MAX {
            self.deliver();
        }
        self.gathered.at = Some(at);
        self.gathered.bytes += record.size_bytes();
        self.gathered.records.push(record);
    }

    /// Hands over what was gathered, and waits a moment where the lane is full.
    fn deliver(&mut self) {
        self.gathered.bytes = 0;
        let records = self.gathered.records.drain(..);
        let Some((at, lane)) = self.gathered.at.and_then(|at| Some((at, self.lanes.get_mut(&at)?))) else {
            return;
        };
        lane.buffer.push(records);
        let bytes_max = buffer_bytes_max(self.lane_bytes_max.load(Ordering::Relaxed));
        if lane.buffer.held_bytes() < bytes_max || lane.paused {
            return;
        }
        let buffer = Arc::clone(&lane.buffer);
        let full_wait = Duration::from_millis(self.config.full_wait_ms);
        // Waiting is cheaper than pausing, which throws away what was fetched ahead. Only a lane that stays full is
        // paused, so that its store holds up neither the others nor membership.
        if !self.space.wait(full_wait, || buffer.held_bytes() < bytes_max) {
            self.intake.pause(at);
            lane.paused = true;
            self.status.lane_paused(at, true);
        }
    }

    /// The client does not say of which topic the partition was read to its end, and need not: below a position
    /// everything was delivered, whichever lane it is.
    fn ended(&mut self, partition: i32) {
        for (at, lane) in self.lanes.iter().filter(|(at, _)| at.partition == partition) {
            lane.buffer.end(self.intake.position(*at));
        }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            // The place is read off the lane's buffer in the next round.
            Command::Wake => {}
            Command::Prove(at, incarnation, offset, reply) => {
                let ours = self.lanes.get(&at).is_some_and(|lane| lane.incarnation == incarnation);
                let answer = if ours {
                    self.intake.commit_and_wait(&[(at, offset)])
                } else {
                    Err(CommitError::NotOurs("the partition was revoked".into()))
                };
                // Nobody waits any more if the lane was stopped meanwhile.
                let _ = reply.send(answer);
            }
        }
    }

    /// Carries out seeks; one that is not possible yet is tried again in the next round. Resumes lanes that have
    /// space again.
    fn seek_and_resume(&mut self) {
        let bytes_max = buffer_bytes_max(self.lane_bytes_max.load(Ordering::Relaxed));
        for (at, lane) in &mut self.lanes {
            self.intake.read_headers_from(*at, lane.buffer.headers_from());
            let has_space = lane.paused && lane.buffer.held_bytes() <= bytes_max / 2;
            let resume_at = || if has_space { lane.buffer.next() } else { None };
            let Some(offset) = lane.buffer.requested().or_else(resume_at) else { continue };
            match self.intake.seek(*at, offset) {
                Ok(()) => {
                    lane.buffer.begin(offset);
                    if std::mem::take(&mut lane.paused) {
                        self.status.lane_paused(*at, false);
                    }
                }
                Err(failure) => {
                    tracing::debug!(projection = self.projection, partition = at.partition, %failure, "seek put off");
                }
            }
        }
    }

    fn commit_acknowledged(&mut self) {
        let now = Instant::now();
        if now < self.commit_due {
            return;
        }
        self.commit_due = now + Duration::from_millis(self.config.offset_commit_interval_ms);
        let mut offsets = Vec::new();
        for (at, lane) in &mut self.lanes {
            let acknowledged = lane.buffer.acknowledged();
            if acknowledged > lane.committed {
                lane.committed = acknowledged;
                offsets.push((*at, acknowledged));
            }
        }
        if !offsets.is_empty() {
            self.intake.commit(&offsets);
        }
    }

    /// What a lane may hold is its share of the projection's memory.
    pub(super) fn share_memory(&mut self) {
        self.lane_bytes_max.store(self.config.lane_bytes_max(self.lanes.len()), Ordering::Relaxed);
    }

    fn in_trouble(&mut self, what: String) {
        if self.trouble.as_ref() != Some(&what) {
            warn!(projection = self.projection, "consumer: {what}; waiting");
            self.status.set_trouble(Some(what.clone()));
            self.trouble = Some(what);
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            info!(projection = self.projection, "consumer: reading again");
            self.status.set_trouble(None);
        }
    }
}
