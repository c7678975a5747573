//! Typed events to Kafka: idempotent, with awaited back-pressure and outcomes.
