//! Being a member of the projection's consumer group, again and again if need be.
//!
//! A static member (KIP-345) is fenced when somebody joins under its name. That need not be another process: when the
//! answer to a join is lost (a broker killed, a connection cut), the client joins once more, and whichever of the two
//! joins the coordinator took last holds the name, while the client may go by the other. Such a ghost sends no heartbeats
//! and is gone after a session; a living process of the same name stays. So a member that was fenced gives its lanes up,
//! looks who has its name until it is free, and joins anew; only where the name stays taken does it stop for good. It
//! never takes the name back by force: who has it may have taken over rightly from a process that was paused.
//!
//! And partitions may belong to nobody. A cooperative rebalance (KIP-429) has two parts: a member gives partitions up, and
//! its joining again makes the leader give them to another. If it is killed between the two, its successor of the same
//! name is handed what the member had kept, without a rebalance (KIP-345), and nobody ever asks for the second part. So a
//! member looks whether every partition has an owner, and else makes the group share out anew: by a member without a name
//! that joins for a moment.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fleetlog_event::catalogue::dead_letter_name;
use fleetlog_kafka::{Admin, ClusterError, GroupFacts, KafkaSettings, TracingContext};
use futures_util::{FutureExt as _, future::BoxFuture};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{EngineConfig, Failure, Intake, KafkaIntake};

/// How long after a rebalance to look whether every partition has an owner.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a member that joins for a moment waits for its assignment, and between two polls.
const NUDGE_TIMEOUT: Duration = Duration::from_secs(20);
const NUDGE_POLL: Duration = Duration::from_millis(50);

/// Makes members of one group under one name.
pub(crate) trait Membership: Send + Sync {
    /// What polls.
    type Intake: Intake + 'static;

    /// Joins, once it is polled.
    ///
    /// # Errors
    /// Permanent when the settings are wrong.
    fn join(&self) -> Result<Self::Intake, Failure>;

    /// The name: `group.instance.id`.
    fn name(&self) -> String;

    /// Who is in the group and has what.
    ///
    /// # Errors
    /// Transient when the coordinator cannot be asked.
    fn group(&self) -> BoxFuture<'_, Result<GroupFacts, Failure>>;

    /// Makes the group share out its partitions anew.
    ///
    /// # Errors
    /// Transient when that did not come about.
    fn nudge(&self) -> BoxFuture<'_, Result<(), Failure>>;

    /// How long after a rebalance to look whether every partition has an owner.
    fn look_interval(&self) -> Duration;

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

impl Membership for KafkaMembership<'_> {
    type Intake = KafkaIntake;

    fn join(&self) -> Result<KafkaIntake, Failure> {
        KafkaIntake::new(self.kafka, self.config, self.group, &self.name(), self.topics.clone())
    }

    fn name(&self) -> String {
        format!("{}-{}", self.config.instance, self.projection)
    }

    fn group(&self) -> BoxFuture<'_, Result<GroupFacts, Failure>> {
        async {
            let failed = |error: ClusterError| Failure::transient(error.to_string());
            Admin::new(self.kafka).map_err(failed)?.group(self.group).await.map_err(failed)
        }
        .boxed()
    }

    fn nudge(&self) -> BoxFuture<'_, Result<(), Failure>> {
        let failed = |error: rdkafka::error::KafkaError| {
            Failure::transient(format!("joining group `{}` for a moment: {error}", self.group))
        };
        // A topic that none of the others reads: no partition of theirs goes to it. Who reads dead letters reads nothing else.
        let topic = match self.topics[0].strip_suffix("-dlq") {
            Some(source) => source.to_owned(),
            None => dead_letter_name(&self.topics[0]),
        };
        let mut config = self.kafka.consumer(self.group);
        let session_timeout_ms = self.config.session_timeout_ms;
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            // If this process is killed meanwhile, the group waits for this member no longer than for the other.
            .set("session.timeout.ms", session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (session_timeout_ms / 5).to_string())
            .set("max.poll.interval.ms", NUDGE_TIMEOUT.as_millis().to_string());
        async move {
            let member: BaseConsumer<TracingContext> =
                config.create_with_context(TracingContext).map_err(failed)?;
            member.subscribe(&[&topic]).map_err(failed)?;
            let joining = tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                while begun.elapsed() < NUDGE_TIMEOUT {
                    // Nothing is read; whatever is said of the topic does not matter.
                    drop(member.poll(NUDGE_POLL));
                    if member.assignment().is_ok_and(|assignment| assignment.count() > 0) {
                        return true;
                    }
                }
                false
            });
            match joining.await {
                Ok(true) => Ok(()),
                _ => {
                    Err(Failure::transient(format!("group `{}` gave no partitions of `{topic}`", self.group)))
                }
            }
        }
        .boxed()
    }

    fn look_interval(&self) -> Duration {
        LOOK_INTERVAL
    }

    fn ghost_timeout(&self) -> Duration {
        // A rebalance may hold up the ghost's expiry by as much as a session.
        2 * Duration::from_millis(self.config.session_timeout_ms)
    }
}

/// Where the member connects from that has the name; none if it is free.
pub(crate) fn holder(group: &GroupFacts, name: &str) -> Option<String> {
    let holder = group.members.iter().find(|member| member.instance.as_deref() == Some(name))?;
    Some(format!("{} (connected from {})", holder.id, holder.host))
}

/// Which of the partitions nobody has. None while a rebalance is under way.
pub(crate) fn unowned<'p>(
    group: &GroupFacts,
    partitions: impl Iterator<Item = &'p (String, i32)>,
) -> Vec<(String, i32)> {
    if !group.is_stable {
        return Vec::new();
    }
    let owned: HashSet<&(String, i32)> = group.members.iter().flat_map(|member| &member.assignment).collect();
    partitions.filter(|partition| !owned.contains(partition)).cloned().collect()
}

/// Whether it is up to the member of that name to do what one has to do.
pub(crate) fn is_first(group: &GroupFacts, name: &str) -> bool {
    group.members.iter().filter_map(|member| member.instance.as_deref()).min() == Some(name)
}

#[cfg(test)]
mod tests {
    use fleetlog_kafka::GroupMember;

    use super::*;

    fn member(name: &str, partitions: &[i32]) -> GroupMember {
        let assignment = partitions.iter().map(|partition| ("t".to_owned(), *partition)).collect();
        GroupMember {
            id: format!("{name}-id"),
            instance: Some(name.to_owned()),
            client: "fleetlog".to_owned(),
            host: "/here".to_owned(),
            assignment,
        }
    }

    #[test]
    fn partitions_that_nobody_has_are_found_once_the_group_is_stable_and_one_member_acts() {
        let members = vec![member("b", &[0, 1]), member("a", &[3])];
        let mut group = GroupFacts { is_stable: true, members, ..GroupFacts::default() };
        let all: Vec<(String, i32)> = (0..4).map(|partition| ("t".to_owned(), partition)).collect();
        assert_eq!(unowned(&group, all.iter()), [("t".to_owned(), 2)]);
        assert!(is_first(&group, "a") && !is_first(&group, "b"));
        assert_eq!(holder(&group, "b").as_deref(), Some("b-id (connected from /here)"));
        assert_eq!(holder(&group, "c"), None);
        group.is_stable = false;
        assert!(unowned(&group, all.iter()).is_empty());
    }
}
