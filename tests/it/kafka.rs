//! The stack's Kafka, as the tests of this folder use it.

use fleetlog_event::catalogue::Catalogue;
use fleetlog_kafka::{Admin, KafkaSettings};
use fleetlog_testkit::{Stack, unique};

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
