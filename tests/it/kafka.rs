//! The stack's Kafka, as the tests of this folder use it.

use fleetlog_kafka::KafkaSettings;

/// Settings for the stack's cluster with a topic prefix of this test's own.
pub(crate) fn cluster(test: &str) -> KafkaSettings {
    let brokers = std::env::var_os("FLEETLOG_KAFKA__BROKERS")
        .expect("FLEETLOG_KAFKA__BROKERS is not set: run `make stack` and export what is in .stack/env");
    let unique = uuid::Uuid::now_v7().simple().to_string();
    KafkaSettings {
        topic_prefix: format!("it-{test}-{}-", &unique[24..]),
        ..KafkaSettings::at(brokers.to_string_lossy())
    }
}
