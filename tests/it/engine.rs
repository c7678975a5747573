//! The engine on a real Kafka: reading, ends, restarts, rebalances, lost history, poison.

#[path = "engine/basics.rs"]
mod basics;
#[path = "engine/support.rs"]
mod support;
