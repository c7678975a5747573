//! A run as a member of its group: as one, or as several, one after the other.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use fleetlog_projection::Fault;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    EngineConfig, Failure,
    lane::SharedLogs,
    membership::{Membership, holder, is_first, unowned},
    runner::End,
    status::ProjectionStatus,
};

/// How rarely a member looks at last whether every partition has an owner.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How the membership of one consumer ended.
pub(crate) enum Served {
    /// The run is over.
    Ended(End),
    /// Somebody joined under its name: what the client said.
    Replaced(String),
}

/// A projection or handler as a member of its group: what there is to be done beside reading.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    /// Which projection or handler.
    pub(crate) id: &'a str,
    pub(crate) status: &'a ProjectionStatus,
    pub(crate) logs: &'a SharedLogs,
    pub(crate) config: &'a EngineConfig,
}

impl Member<'_> {
    /// Joins, and has the consumer served; again where its name was taken for a while.
    pub(crate) async fn serve<'s, M: Membership>(
        &self,
        membership: &M,
        stop: &CancellationToken,
        serve: impl Fn(M::Intake) -> BoxFuture<'s, Served> + Send,
    ) -> End {
        loop {
            let intake = match membership.join() {
                Ok(intake) => intake,
                Err(failure) => return End::Failed(failure.what),
            };
            let served = tokio::select! {
                served = serve(intake) => served,
                never = self.watch_group(membership) => match never {},
            };
            match served {
                Served::Ended(end) => return end,
                Served::Replaced(what) => {
                    if let Err(end) = self.await_name(membership, &what, stop).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Tries until it works, is permanent, or is stopped: also in the middle of a call.
    pub(crate) async fn insist<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        doing: &str,
        stop: &CancellationToken,
        mut call: impl FnMut() -> F,
    ) -> Result<T, End> {
        let mut told = None;
        loop {
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Stopped),
                answer = call() => answer,
            };
            match answer {
                Ok(value) => {
                    self.status.set_trouble(None);
                    return Ok(value);
                }
                Err(failure) if failure.fault == Fault::Transient => {
                    if told.as_ref() != Some(&failure.what) {
                        warn!(projection = self.id, "{doing}: {failure}; waiting");
                        self.status.set_trouble(Some(format!("{doing}: {failure}")));
                        told = Some(failure.what);
                    }
                }
                Err(failure) => return Err(End::Failed(format!("{doing}: {failure}"))),
            }
            self.pause(stop).await?;
        }
    }

    /// The pause between two tries of something that is not up to us.
    async fn pause(&self, stop: &CancellationToken) -> Result<(), End> {
        let pause = Duration::from_millis(self.config.retry_delay_ms_max);
        tokio::select! {
            () = stop.cancelled() => Err(End::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// Looks for partitions that nobody has, and sees to it that the group shares out anew.
    async fn watch_group(&self, membership: &impl Membership) -> Infallible {
        let (mut before, mut lanes, mut interval) = (Vec::new(), Vec::new(), membership.look_interval());
        loop {
            tokio::time::sleep(interval).await;
            // What nobody has is left behind by rebalances: the longer the last one is ago, the rarer is the look.
            let now = self.status.assigned_lanes();
            interval = if now == lanes && before.is_empty() {
                (2 * interval).min(LOOK_INTERVAL_MAX)
            } else {
                membership.look_interval()
            };
            lanes = now;
            // A cluster that cannot be asked is asked again in the next round; the consumer complains about it.
            let Ok(logs) = self.logs.look(tokio::time::Instant::now()).await else { continue };
            let Ok(group) = membership.group().await else { continue };
            let nobodys = unowned(&group, logs.keys());
            // Twice in a row: between two parts of a rebalance there are always some.
            if nobodys.is_empty() || nobodys != before || !is_first(&group, &membership.name()) {
                if !nobodys.is_empty() {
                    interval = membership.look_interval();
                }
                before = nobodys;
                continue;
            }
            before.clear();
            warn!(projection = self.id, partitions = ?nobodys, "nobody in the group has these partitions; asking for a rebalance");
            if let Err(failure) = membership.nudge().await {
                warn!(projection = self.id, %failure, "no rebalance; asking again");
            }
        }
    }

    /// Waits until nobody has this member's name in the group; not for longer than a ghost may have it.
    async fn await_name(
        &self,
        membership: &impl Membership,
        what: &str,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        warn!(
            projection = self.id,
            "somebody joined the group under this member's name ({what}); lanes given up"
        );
        self.status.membership_lost();
        let mut begun = Instant::now();
        let name = membership.name();
        loop {
            let group = self.insist("asking who is in the group", stop, || membership.group()).await?;
            let Some(holder) = holder(&group, &name) else { break };
            if !group.is_stable {
                // A rebalance holds up the ghost's end for as long as it lasts.
                begun = Instant::now();
            }
            if begun.elapsed() > membership.ghost_timeout() {
                return Err(End::Failed(format!(
                    "the consumer cannot go on: {what}: another process runs with the same instance name: \
                     {holder}; give each its own (run.instance)"
                )));
            }
            self.status.set_trouble(Some(format!("its name in the group is taken by {holder}")));
            self.pause(stop).await?;
        }
        self.status.set_trouble(None);
        info!(projection = self.id, "the name is free again; joining anew");
        Ok(())
    }
}

/// Keeps the lanes' ends fresh, for lag, and has it told.
pub(crate) async fn watch_ends(
    logs: &SharedLogs,
    status: &ProjectionStatus,
    interval: Duration,
    tell: impl Fn(),
) -> Infallible {
    loop {
        tokio::time::sleep(interval).await;
        // A cluster that cannot be asked leaves the ends as they were; the consumer complains about it.
        let Ok(facts) = logs.look(tokio::time::Instant::now()).await else { continue };
        for log in facts.values() {
            let at = crate::LaneAt { topic: log.scope.topic, partition: log.scope.partition };
            if let Some(lane) = status.lane(at) {
                lane.set_end(log.high);
            }
        }
        tell();
    }
}
