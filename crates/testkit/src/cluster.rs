//! A private Kafka cluster of three.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use fleetlog_kafka::KafkaSettings;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::{Instant, sleep};

use crate::{
    kafka::{KafkaServer, Node, settings_for},
    process::free_port,
};

/// Brokers of a cluster: with replication factor 3 and min ISR 2 any one may be away.
const NODES: usize = 3;
/// How long the cluster may take to agree: loading logs, fetching what was missed.
const AGREE_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two looks whether it has.
const AGREE_POLL: Duration = Duration::from_millis(100);

/// Three Kafka nodes of one's own, each broker and controller, 256 MB of heap each. Takes about ten seconds to start on
/// two processors.
///
/// A node is a [`KafkaServer`]: killed, stopped, paused and restarted by itself.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<KafkaServer>,
}

impl KafkaCluster {
    /// Starts the three side by side and waits until all answer.
    ///
    /// # Errors
    /// If Java or the jars are missing, or a node doesn't come up.
    pub async fn start() -> Result<Self> {
        let ports = (0..2 * NODES).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let (ports, controller_ports) = ports.split_at(NODES);
        // Sessions are short, so that a killed broker's partitions move on within seconds.
        let options = ["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"];
        let node = |id: usize| Node {
            id,
            port: ports[id - 1],
            controller_ports,
            behind: None,
            options: &options,
            secure: &[],
        };
        let (first, second, third) = (node(1), node(2), node(3));
        let (first, second, third) = tokio::try_join!(
            KafkaServer::prepare(&first),
            KafkaServer::prepare(&second),
            KafkaServer::prepare(&third),
        )?;
        let mut nodes = vec![first, second, third];
        // None answers before most are there.
        let [first, second, third] = nodes.as_mut_slice() else { bail!("a cluster has {NODES} nodes") };
        tokio::try_join!(first.restart(), second.restart(), third.restart())?;
        Ok(Self { nodes })
    }

    /// The nodes' addresses, separated by commas; the same after restarts.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.nodes.iter().map(KafkaServer::brokers).collect::<Vec<_>>().join(",")
    }

    /// Client settings for this cluster, with topics of replication factor 3 and groups under `topic_prefix`.
    #[must_use]
    pub fn settings(&self, topic_prefix: &str) -> KafkaSettings {
        settings_for(self.brokers(), topic_prefix, 3)
    }

    /// A node, counted from 0.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&mut self, index: usize) -> &mut KafkaServer {
        &mut self.nodes[index]
    }

    /// Which node is the active controller, counted from 0: the leader of the newest epoch that any node knows of.
    ///
    /// # Errors
    /// If no node has noted one.
    pub fn controller(&self) -> Result<usize> {
        let known = self.nodes.iter().filter_map(|node| {
            let path = node.data().join("__cluster_metadata-0/quorum-state");
            Leader::parse(&fs::read_to_string(path).ok()?)
        });
        let newest = known.max_by_key(|leader| leader.epoch).context("no node knows a controller")?;
        newest
            .id
            .checked_sub(1)
            .filter(|index| *index < NODES)
            .context("the controller is no node of this cluster")
    }

    /// Waits until another node than `index` is the active controller; which.
    ///
    /// # Errors
    /// If none is within a minute.
    pub async fn controller_moves_from(&self, index: usize) -> Result<usize> {
        let deadline = Instant::now() + AGREE_TIMEOUT;
        loop {
            match self.controller() {
                Ok(controller) if controller != index => return Ok(controller),
                _ if Instant::now() > deadline => {
                    bail!("node {index} is still the controller after {AGREE_TIMEOUT:?}")
                }
                _ => sleep(AGREE_POLL).await,
            }
        }
    }

    /// Waits until every partition is led and has all its replicas in sync: then any one broker may go.
    ///
    /// # Errors
    /// If it isn't so within a minute: which partitions.
    pub async fn in_sync(&self) -> Result<()> {
        let deadline = Instant::now() + AGREE_TIMEOUT;
        loop {
            let settings = self.settings("");
            let behind = tokio::task::spawn_blocking(move || out_of_sync(&settings)).await?;
            match behind {
                Ok(behind) if behind.is_empty() => return Ok(()),
                not_yet if Instant::now() > deadline => {
                    bail!("not in sync within {AGREE_TIMEOUT:?}: {not_yet:?}")
                }
                _ => sleep(AGREE_POLL).await,
            }
        }
    }
}

/// Partitions that lack a leader or a replica in sync, as `topic/partition`.
fn out_of_sync(settings: &KafkaSettings) -> Result<Vec<String>> {
    let client: BaseConsumer = settings.client().create()?;
    let metadata = client.fetch_metadata(None, Duration::from_secs(5))?;
    if metadata.brokers().len() < NODES {
        bail!("{} brokers of {NODES}", metadata.brokers().len());
    }
    let mut behind = Vec::new();
    for topic in metadata.topics() {
        let lacking = topic.partitions().iter().filter(|partition| {
            partition.error().is_some()
                || partition.leader() < 0
                || partition.isr().len() < partition.replicas().len()
        });
        behind.extend(lacking.map(|partition| format!("{}/{}", topic.name(), partition.id())));
    }
    Ok(behind)
}

/// What a node's `quorum-state` says.
#[derive(Debug, PartialEq, Eq)]
struct Leader {
    id: usize,
    epoch: u64,
}

impl Leader {
    /// `None` while it knows of none (-1).
    fn parse(quorum_state: &str) -> Option<Self> {
        let number = |name: &str| {
            let (_, after) = quorum_state.split_once(&format!("\"{name}\":"))?;
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            after[..end].parse::<u64>().ok()
        };
        Some(Self { id: usize::try_from(number("leaderId")?).ok()?, epoch: number("leaderEpoch")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_read_off_a_quorum_state() {
        let text = r#"{"leaderId":3,"leaderEpoch":12,"votedId":-1,"appliedOffset":0,"currentVoters":[],"data_version":0}"#;
        assert_eq!(Leader::parse(text), Some(Leader { id: 3, epoch: 12 }));
        assert_eq!(Leader::parse(r#"{"leaderId":-1,"leaderEpoch":13}"#), None);
        assert_eq!(Leader::parse(""), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_controller_moves_when_its_node_dies_and_the_node_comes_back_in_sync() {
        let mut cluster = KafkaCluster::start().await.unwrap();
        cluster.in_sync().await.unwrap();
        let first = cluster.controller().unwrap();
        cluster.node(first).kill();
        let second = cluster.controller_moves_from(first).await.unwrap();
        assert_ne!(first, second);
        cluster.node(first).restart().await.unwrap();
        cluster.in_sync().await.unwrap();
        assert_eq!(cluster.brokers().split(',').count(), NODES);
    }
}
