//! Typed events to Kafka: idempotent, with awaited back-pressure and outcomes.
//!
//! ```no_run
//! # async fn hello() -> Result<(), Box<dyn std::error::Error>> {
//! use fleetlog_event::robot::DoorState;
//! use fleetlog_kafka::KafkaSettings;
//! use fleetlog_producer::{Author, EventProducer};
//!
//! let producer = EventProducer::connect(&KafkaSettings::at("127.0.0.1:9092"))?;
//! let author = Author::new("504", "door-service", "1.4.0");
//! let event = author.unit("lift-2").door_changed("front", DoorState::Open);
//! let delivery = producer.send(event).await?; // waits only while too much is in flight
//! println!("at {}", delivery.await?); // waits for the acknowledgement of all in-sync replicas
//! # Ok(()) }
//! ```
//!
//! Guarantees:
//! - acknowledged means: all in-sync replicas have it (`acks=all`), once per send (idempotent producer);
//! - events sent one after the other with the same key lie in that order, in the partition that Java's default
//!   partitioner gives;
//! - nothing is dropped: every send ends in an acknowledgement or an error that names it, and what is too much waits;
//! - a fatal error of the client is survived: everything not acknowledged goes, in its order and with the same
//!   `event_id`, to a new client. An event whose acknowledgement was lost on the way may then lie twice on the log:
//!   readers know it by its `event_id`.
//!
//! Speed: let the process use jemalloc (crate `tikv-jemallocator`). With glibc's allocator the sender waits for librdkafka's
//! threads, which give back what it took: a third of the events a second (`docs/adr/0015-what-speed-hangs-on.md`).
//!
//! Not guaranteed: order between events of different keys, and anything across a restart of the process (fix the
//! `event_id` before the first send and send again).

mod client;
mod cloud_events;
mod error;
mod event_producer;
mod outbox;
mod raw;
mod record;
mod schemas;
mod transaction;

pub mod author;
pub mod metrics;

pub use author::Author;
pub use error::{Cause, ConnectError, DeliveryError, SendError, TransactionError};
pub use event_producer::{Batch, BatchError, EventProducer, SendOptions};
pub use metrics::ProducerMetrics;
pub use outbox::{Delivered, Delivery, ProducerSettings, Report};
pub use raw::RawProducer;
pub use record::RawRecord;
pub use schemas::{SchemaError, Schemas};
pub use transaction::TransactionalProducer;
