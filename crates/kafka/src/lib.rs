//! Kafka client settings, topic administration, the schema topic, a reader of the log.
