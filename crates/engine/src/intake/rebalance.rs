//! Taking up and giving back lanes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Intake, LaneAt, PollThread,
    buffer::{LaneBuffer, LaneFeed},
};

/// A lane at work.
#[derive(Debug)]
pub(crate) struct LaneTask {
    /// Asks it to stop after the write in flight.
    pub(crate) stop: CancellationToken,
    /// Ends when it has stopped.
    pub(crate) ended: JoinHandle<()>,
}

/// What the poll thread knows of a lane.
#[derive(Debug)]
pub(super) struct LaneEntry {
    pub(super) buffer: Arc<LaneBuffer>,
    pub(super) incarnation: u64,
    pub(super) task: LaneTask,
    /// Its partition is paused because it stayed full.
    pub(super) paused: bool,
    /// The offset that Kafka was told last.
    pub(super) committed: i64,
}

impl<I: Intake> PollThread<I> {
    /// Starts lanes and begins to read each where it says. Those whose store does not answer in time are assigned
    /// paused; they are sought when they name their place.
    pub(super) fn assigned(&mut self, lanes: &[LaneAt]) {
        lanes.iter().for_each(|lane| self.start_lane(*lane));
        self.share_memory();
        self.await_starts(lanes);
        let starts: Vec<(LaneAt, Option<i64>)> = lanes
            .iter()
            .map(|at| (*at, self.lanes.get(at).and_then(|lane| lane.buffer.requested())))
            .collect();
        info!(projection = self.projection, partitions = lanes.len(), "partitions assigned");
        if let Err(failure) = self.intake.assign(&starts) {
            // The group has moved on: a revocation of these lanes follows.
            warn!(projection = self.projection, %failure, "assignment not taken up");
        }
        for (at, start) in starts {
            if let (Some(offset), Some(lane)) = (start, self.lanes.get(&at)) {
                self.intake.read_headers_from(at, lane.buffer.headers_from());
                lane.buffer.begin(offset);
            }
        }
        self.status.assigned();
    }

    fn start_lane(&mut self, at: LaneAt) {
        if self.lanes.contains_key(&at) {
            return;
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let buffer = Arc::new(LaneBuffer::new(Arc::clone(&self.space)));
        let (commands, share) = (self.commands_sender.clone(), Arc::clone(&self.lane_bytes_max));
        let feed = LaneFeed::new(at, incarnation, Arc::clone(&buffer), commands, share);
        let task = (self.spawn)(at, feed);
        let entry = LaneEntry { buffer, incarnation, task, paused: false, committed: -1 };
        self.lanes.insert(at, entry);
    }

    /// Waits until every new lane has named its place, at most as long as configured, for all together.
    fn await_starts(&mut self, lanes: &[LaneAt]) {
        let deadline = Instant::now() + Duration::from_millis(self.config.assign_wait_ms);
        while !self.stop.is_cancelled() {
            let unknown =
                |at: &LaneAt| self.lanes.get(at).is_some_and(|lane| lane.buffer.requested().is_none());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !lanes.iter().any(unknown) {
                return;
            }
            if let Ok(command) = self.commands.recv_timeout(left.min(Duration::from_millis(50))) {
                self.obey(command);
            }
        }
    }

    /// Stops lanes, lets their writes in flight finish, tells Kafka how far they came, and gives them back.
    pub(super) fn revoked(&mut self, lanes: &[LaneAt], lost: bool) {
        info!(projection = self.projection, partitions = lanes.len(), lost, "partitions revoked");
        self.stop_lanes(lanes, lost);
        if let Err(failure) = self.intake.unassign(lanes) {
            warn!(projection = self.projection, %failure, "partitions not given up");
        }
        self.share_memory();
    }

    /// Stops lanes within the drain deadline; a lane that does not end in time is dropped in the middle of its
    /// write, which the chain of links makes harmless.
    pub(super) fn stop_lanes(&mut self, lanes: &[LaneAt], lost: bool) {
        let entries: Vec<(LaneAt, LaneEntry)> =
            lanes.iter().filter_map(|at| Some((*at, self.lanes.remove(at)?))).collect();
        entries.iter().for_each(|(_, lane)| lane.task.stop.cancel());
        let mut offsets = Vec::new();
        let mut ended = Vec::new();
        for (at, lane) in entries {
            ended.push((at, lane.task.ended, lane.buffer, lane.committed));
        }
        let deadline = tokio::time::Instant::now() + self.config.drain_deadline();
        let runtime = self.runtime.clone();
        for (at, mut task, buffer, committed) in ended {
            let in_time =
                runtime.block_on(async { tokio::time::timeout_at(deadline, &mut task).await.is_ok() });
            if !in_time {
                task.abort();
                warn!(
                    projection = self.projection,
                    partition = at.partition,
                    "write in flight given up at the deadline"
                );
            }
            self.status.lane_left(at);
            if buffer.acknowledged() > committed {
                offsets.push((at, buffer.acknowledged()));
            }
        }
        if !lost && !offsets.is_empty() {
            self.intake.commit(&offsets);
        }
    }
}
