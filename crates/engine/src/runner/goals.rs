//! How far `--once` has to go: to the ends of the logs, and of the inboxes, that were seen at the start.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_projection::{LogNow, Projection, Sink};
use tokio::time::Instant;

use super::{ProjectionRunner, lane_at, lane_id};
use crate::{Failure, InboxAt, LaneAt, lane::Shared, ports::Schemas};

/// How often it is looked whether everything is reached.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a lane has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    log: LogNow,
    /// Everything before it in the inbox is to be carried out.
    inbox: i64,
    /// The inbox progress at the start. Beyond what the inbox has if it was made anew: then it means nothing until the lane
    /// has begun anew as well.
    inbox_from: i64,
}

impl Goal {
    fn is_reached(&self, main: i64, inbox: i64) -> bool {
        let is_anew = self.inbox > 0 && self.inbox_from > self.inbox;
        main >= self.log.high && inbox >= self.inbox && !(is_anew && inbox >= self.inbox_from)
    }
}

/// What every lane has to reach.
pub(crate) type Goals = BTreeMap<LaneAt, Goal>;

impl<P, S, C> ProjectionRunner<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Where logs and inboxes end now.
    pub(super) async fn goals(&self) -> Result<Goals, Failure> {
        let Shared { projection, sink, logs, inbox, .. } = &*self.shared;
        let logs = logs.look(Instant::now()).await?;
        let inbox_of =
            |at: LaneAt| InboxAt { topic: self.topics[at.topic].inbox.clone(), partition: at.partition };
        let mut from = BTreeMap::new();
        for at in logs.values().map(lane_at).filter(|_| P::READS_EVENTS) {
            let lane = lane_id(projection, &self.topics[at.topic], at.partition);
            let progress = sink.read(&lane, &[]).await?.progress;
            from.insert(inbox_of(at), progress.map_or(0, |progress| progress.inbox));
        }
        let last = inbox.last(from.clone()).await?;
        let goal = |log: &LogNow| {
            let (at, inbox) = (lane_at(log), inbox_of(lane_at(log)));
            let inbox_from = from.get(&inbox).copied().unwrap_or(0);
            (at, Goal { log: *log, inbox: last.get(&inbox).map_or(0, |last| last + 1), inbox_from })
        };
        Ok(logs.values().map(goal).collect())
    }

    /// Ends once every lane is there: own lanes by their status, others by what is stored.
    pub(super) async fn caught_up(&self, goals: Option<Goals>) {
        let Some(mut open) = goals else { return std::future::pending().await };
        loop {
            let mut still = Goals::new();
            for (at, goal) in open {
                if !self.reached(at, &goal).await {
                    still.insert(at, goal);
                }
            }
            if still.is_empty() {
                return;
            }
            open = still;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn reached(&self, at: LaneAt, goal: &Goal) -> bool {
        let status = &self.shared.status;
        if !status.was_assigned() {
            return false;
        }
        if let Some(lane) = status.lane(at) {
            return lane
                .progress()
                .zip(lane.inbox())
                .is_some_and(|(main, inbox)| goal.is_reached(main, inbox));
        }
        let lane = lane_id(&self.shared.projection, &self.topics[at.topic], at.partition);
        // What cannot be read now is looked at again in the next round.
        let stored = self.shared.sink.read(&lane, &[]).await.ok().and_then(|stored| stored.progress);
        stored.is_some_and(|progress| {
            progress.log == goal.log.scope.log && goal.is_reached(progress.main, progress.inbox)
        })
    }
}
