//! Makes sure that readers can look up an event's schema before the event is on the log.

use std::collections::HashMap;

use fleetlog_codec::{Encoder, RegistryClient, RegistryError, builtin_schemas};
use fleetlog_event::FleetEvent;
use fleetlog_kafka::{ClusterError, KafkaSettings, PublishError, SchemaTopic};
use tokio::sync::OnceCell;

/// Why an event's schema is not where readers look for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SchemaError {
    /// The schema topic could not be read or written.
    #[error(transparent)]
    Topic(#[from] PublishError),
    /// The registry did not take it.
    #[error("registering the schema of `{event}`: {source}")]
    Registry {
        /// Full name of the event.
        event: &'static str,
        /// What the registry said.
        source: RegistryError,
    },
    /// There is no such event.
    #[error("`{0}` is no event of this version of fleetlog")]
    UnknownEvent(&'static str),
}

/// How events are framed, and where their schemas go.
pub struct Schemas {
    encoder: Encoder,
    home: Home,
}

enum Home {
    /// All schemas at once, before the first event.
    Topic(SchemaTopic, OnceCell<()>),
    /// Each event's, before its first.
    Registry(RegistryClient, HashMap<&'static str, OnceCell<()>>),
}

impl Schemas {
    /// Single-object encoding, schemas on the deployment's schema topic: needs nothing but Kafka.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn on_topic(kafka: &KafkaSettings) -> Result<Self, ClusterError> {
        let home = Home::Topic(SchemaTopic::new(kafka)?, OnceCell::new());
        Ok(Self { encoder: Encoder::single_object(), home })
    }

    /// Confluent framing, schemas in a registry.
    #[must_use]
    pub fn in_registry(registry: RegistryClient) -> Self {
        let registered = FleetEvent::types().map(|event| (event.name, OnceCell::new())).collect();
        Self { encoder: Encoder::confluent(), home: Home::Registry(registry, registered) }
    }

    /// The encoder, whose events are those that [`ready`](Self::ready) was awaited for.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Awaits that the schema of `event` (full name) can be looked up by readers; at once after the first time.
    ///
    /// # Errors
    /// When it could not be put where readers look; asking again tries again.
    pub async fn ready(&self, event: &'static str, physical_topic: &str) -> Result<(), SchemaError> {
        match &self.home {
            Home::Topic(topic, published) => {
                let publish = async || topic.publish(builtin_schemas()).await.map(|_| ());
                Ok(published.get_or_try_init(publish).await.copied()?)
            }
            Home::Registry(registry, registered) => {
                let cell = registered.get(event).ok_or(SchemaError::UnknownEvent(event))?;
                let register = async || {
                    let id = registry.register(physical_topic, event).await;
                    let id = id.map_err(|source| SchemaError::Registry { event, source })?;
                    self.encoder.set_id(event, id);
                    Ok(())
                };
                cell.get_or_try_init(register).await.copied()
            }
        }
    }
}
