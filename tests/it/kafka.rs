//! The stack's Kafka, as the tests of this folder use it.

use fleetlog_event::catalogue::Catalogue;
use fleetlog_kafka::{Admin, KafkaSettings};
use fleetlog_testkit::{KafkaServer, Stack, unique};

/// Settings for the stack's cluster with a topic prefix of this test's own.
pub(crate) fn cluster(test: &str) -> KafkaSettings {
    Stack::from_env().kafka(&unique(test))
}

/// The catalogue's topics under the settings' prefix.
pub(crate) async fn create_topics(settings: &KafkaSettings) {
    let specs = Catalogue::builtin().expand(&settings.topic_prefix, Some(1));
    let admin = Admin::new(settings).unwrap();
    admin.apply(&admin.plan(&specs).await.unwrap()).await.unwrap();
}

/// A cluster whose only broker tells the controller of itself every three seconds, and is taken for dead after two: for a second of
/// each three the cluster names no broker, as it does for a moment after its only broker stood still. A client that asks just
/// then forgets the one that it knew.
pub(crate) async fn forgetful() -> KafkaServer {
    let options = ["broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=3000"];
    KafkaServer::start_with(&options).await.unwrap()
}
