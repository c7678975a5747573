//! The engine on a real Kafka: reading, ends, restarts, rebalances, lost history, poison.

#[path = "engine/basics.rs"]
mod basics;
#[path = "engine/handlers.rs"]
mod handlers;
#[path = "engine/history.rs"]
mod history;
#[path = "engine/poison.rs"]
mod poison;
#[path = "engine/rebalance.rs"]
mod rebalance;
#[path = "engine/redrive.rs"]
mod redrive;
#[path = "engine/support.rs"]
mod support;
