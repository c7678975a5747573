//! A run as a member of the projection's group: as one, or as several, one after the other.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetlog_projection::{Projection, Sink};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{End, ProjectionRunner, Served, goals::Goals, watch_ends};
use crate::{
    lane::Shared,
    membership::{KafkaMembership, Membership, holder, is_first, unowned},
    ports::Schemas,
};

/// How rarely a member looks at last whether every partition has an owner.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);

impl<P, S, C> ProjectionRunner<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    pub(super) fn membership(&self) -> KafkaMembership<'_> {
        let Shared { projection, config, group, .. } = &*self.shared;
        let topics = self.topics.iter().map(|topic| topic.name.clone()).collect();
        KafkaMembership { kafka: &self.kafka, config, group, projection: projection.id(), topics }
    }

    /// Runs poll thread and lanes until the end.
    pub(crate) async fn drive<M: Membership>(
        &self,
        membership: &M,
        goals: Option<Goals>,
        stop: &CancellationToken,
    ) -> End {
        let lag = self.runtime.handle().spawn(watch_ends(Arc::clone(&self.shared)));
        let end = loop {
            let intake = match membership.join() {
                Ok(intake) => intake,
                Err(failure) => break End::Failed(failure.what),
            };
            let served = tokio::select! {
                served = self.serve(intake, goals.clone(), stop) => served,
                never = self.watch_group(membership) => match never {},
            };
            match served {
                Served::Ended(end) => break end,
                Served::Replaced(what) => {
                    if let Err(end) = self.await_name(membership, &what, stop).await {
                        break end;
                    }
                }
            }
        };
        lag.abort();
        end
    }

    /// Looks for partitions that nobody has, and sees to it that the group shares out anew.
    async fn watch_group(&self, membership: &impl Membership) -> Infallible {
        let projection = self.shared.projection.id();
        let (mut before, mut lanes, mut interval) = (Vec::new(), Vec::new(), membership.look_interval());
        loop {
            tokio::time::sleep(interval).await;
            // What nobody has is left behind by rebalances: the longer the last one is ago, the rarer is the look.
            let now = self.shared.status.assigned_lanes();
            interval = if now == lanes && before.is_empty() {
                (2 * interval).min(LOOK_INTERVAL_MAX)
            } else {
                membership.look_interval()
            };
            lanes = now;
            // A cluster that cannot be asked is asked again in the next round; the consumer complains about it.
            let Ok(logs) = self.shared.logs.look(tokio::time::Instant::now()).await else { continue };
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
            warn!(projection, partitions = ?nobodys, "nobody in the group has these partitions; asking for a rebalance");
            if let Err(failure) = membership.nudge().await {
                warn!(projection, %failure, "no rebalance; asking again");
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
        let projection = self.shared.projection.id();
        warn!(projection, "somebody joined the group under this member's name ({what}); lanes given up");
        self.shared.status.membership_lost();
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
            self.shared.status.set_trouble(Some(format!("its name in the group is taken by {holder}")));
            self.pause(stop).await?;
        }
        self.shared.status.set_trouble(None);
        info!(projection, "the name is free again; joining anew");
        Ok(())
    }
}
