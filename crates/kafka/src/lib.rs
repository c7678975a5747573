//! All Kafka plumbing that several crates share: client settings, topic administration, offsets, a reader of the
//! log, the schema topic.
//!
//! Everything that touches librdkafka beyond producing and group membership is here, so that borders and defaults
//! are in one place. Calls marked *blocking* wait for brokers and belong on a thread of their own (or
//! `spawn_blocking`); async ones say so by being async.

mod admin;
mod bootstrap;
mod context;
mod error;
mod headers;
mod inspect;
mod native;
mod offsets;
mod plan;
mod reader;
mod schema_topic;
mod settings;
mod trouble;

pub use admin::{Admin, ClusterFacts};
pub use bootstrap::Bootstrap;
pub use context::{TracingContext, log_error, log_line};
pub use error::{ClusterError, KafkaFault, classify, error_code};
pub use headers::{HeaderName, headers, native_headers};
pub use inspect::{BrokerFacts, Overview, PartitionHealth, Tail, TailRecord, tail};
pub use native::{GroupFacts, GroupMember, GroupState, commit_and_tell, fail_client_for_test};
pub use offsets::{GroupOffsets, Offsets, PartitionOffsets, position};
pub use plan::{Change, ConfigChange, Plan, Refusal, RefusalKind, TopicFacts, Warning};
pub use reader::{LogReader, OwnedRecord, PartitionRange, Read, ReadError, RecordView};
pub use schema_topic::{PublishError, SchemaTopic};
pub use settings::KafkaSettings;
pub use trouble::{Trouble, TroubleKind, watch_trouble};
