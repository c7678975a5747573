//! Being a member of the projection's consumer group, again and again if need be.
//!
//! A static member (KIP-345) is fenced when somebody joins under its name. That need not be another process: when the
//! answer to a join is lost (a broker killed, a connection cut), the client joins once more, and whichever of the two
//! joins the coordinator took last holds the name, while the client may go by the other. Such a ghost sends no heartbeats
//! and is gone after a session; a living process of the same name stays. So a member that was fenced gives its lanes up,
//! looks who has its name until it is free, and joins anew; only where the name stays taken does it stop for good. It
//! never takes the name back by force: who has it may have taken over rightly from a process that was paused.

use std::time::Duration;

use fleetlog_kafka::{Admin, KafkaSettings};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{EngineConfig, Failure, Intake, KafkaIntake};

/// Makes members of one group under one name.
pub(crate) trait Membership: Send + Sync {
    /// What polls.
    type Intake: Intake + 'static;

    /// Joins, once it is polled.
    ///
    /// # Errors
    /// Permanent when the settings are wrong.
    fn join(&self) -> Result<Self::Intake, Failure>;

    /// Where the member connects from that has the name now; none if it is free.
    ///
    /// # Errors
    /// Transient when the coordinator cannot be asked.
    fn holder(&self) -> BoxFuture<'_, Result<Option<String>, Failure>>;

    /// After which time a member that does not live has surely lost the name.
    fn ghost_timeout(&self) -> Duration;
}

/// [`Membership`] of a Kafka consumer group.
pub(crate) struct KafkaMembership<'a> {
    pub(crate) kafka: &'a KafkaSettings,
    pub(crate) config: &'a EngineConfig,
    pub(crate) group: &'a str,
    pub(crate) projection: &'a str,
    /// By physical name.
    pub(crate) topics: Vec<String>,
}

impl KafkaMembership<'_> {
    /// The member's `group.instance.id`.
    fn name(&self) -> String {
        format!("{}-{}", self.config.instance, self.projection)
    }
}

impl Membership for KafkaMembership<'_> {
    type Intake = KafkaIntake;

    fn join(&self) -> Result<KafkaIntake, Failure> {
        KafkaIntake::new(self.kafka, self.config, self.group, &self.name(), self.topics.clone())
    }

    fn holder(&self) -> BoxFuture<'_, Result<Option<String>, Failure>> {
        async {
            let failed = |error: fleetlog_kafka::ClusterError| Failure::transient(error.to_string());
            let members = Admin::new(self.kafka).map_err(failed)?.group_members(self.group).await;
            let name = self.name();
            let mut members = members.map_err(failed)?.into_iter();
            let holder = members.find(|member| member.instance.as_ref() == Some(&name));
            Ok(holder.map(|member| format!("{} (connected from {})", member.id, member.host)))
        }
        .boxed()
    }

    fn ghost_timeout(&self) -> Duration {
        // A rebalance may hold up the ghost's expiry by as much as a session.
        2 * Duration::from_millis(self.config.session_timeout_ms)
    }
}
