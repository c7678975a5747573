//! Bytes to events, in two steps: look up every schema a batch needs (async, may have to wait), then decode (pure).

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use fleetlog_event::{Decode, DecodeOne, Event, EventId, EventSet, EventType, FleetEvent, Reason, Reject};
use tokio::time::Instant;

use crate::{LookupError, SchemaRef, SchemaSource, WriterSchema, frame};

/// How long a denied schema is remembered: long enough to spare the registry a flood of noise, short enough that a
/// schema registered late is found without a restart.
const DENIED_FOR: Duration = Duration::from_secs(30);
/// Most denied schemas that are remembered (noise can name any number of them).
const DENIED_MAX: usize = 10_000;
/// Longest reason in words: apache-avro prints whole schemas.
const DETAIL_BYTES_MAX: usize = 400;

/// A schema that cannot be looked up now: wait, then prepare the batch again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{schema} cannot be looked up now: {detail}")]
pub struct Unavailable {
    /// Which schema.
    pub schema: SchemaRef,
    /// Why not.
    pub detail: String,
}

type Schemas = HashMap<SchemaRef, Result<Arc<WriterSchema>, Denied>>;

#[derive(Clone, Debug)]
struct Denied {
    detail: Arc<str>,
    at: Instant,
}

/// Looks up writer schemas and remembers them.
pub struct Decoder {
    source: Arc<dyn SchemaSource>,
    schemas: RwLock<Arc<Schemas>>,
}

impl Decoder {
    /// A decoder that asks `source` for every schema that is not compiled in.
    #[must_use]
    pub fn new(source: Arc<dyn SchemaSource>) -> Self {
        Self { source, schemas: RwLock::default() }
    }

    /// Looks up the schemas of `payloads`, those not known yet one after the other.
    ///
    /// # Errors
    /// When one of them cannot be looked up now. What was found until then is kept.
    pub async fn prepare<'a, P>(&self, payloads: P) -> Result<Prepared, Unavailable>
    where
        P: IntoIterator<Item = Option<&'a [u8]>>,
    {
        let known = self.snapshot();
        let missing = missing(&known, payloads);
        if missing.is_empty() {
            return Ok(Prepared { schemas: known });
        }
        // A copy of its own, so that nobody tidies away what this batch needs.
        let mut schemas = Schemas::clone(&known);
        for schema in missing {
            let found = self.find(schema).await?;
            self.remember(schema, found.clone());
            schemas.insert(schema, found);
        }
        Ok(Prepared { schemas: Arc::new(schemas) })
    }

    async fn find(&self, schema: SchemaRef) -> Result<Result<Arc<WriterSchema>, Denied>, Unavailable> {
        if let SchemaRef::Fingerprint(fingerprint) = schema
            && let Some(builtin) = WriterSchema::builtin(fingerprint)
        {
            return Ok(Ok(builtin));
        }
        match self.source.find(schema).await {
            Ok(found) => Ok(Ok(found)),
            Err(LookupError::NotFound(detail)) => {
                Ok(Err(Denied { detail: detail.into(), at: Instant::now() }))
            }
            Err(LookupError::Unavailable(detail)) => Err(Unavailable { schema, detail }),
        }
    }

    fn snapshot(&self) -> Arc<Schemas> {
        Arc::clone(&self.schemas.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, schema: SchemaRef, found: Result<Arc<WriterSchema>, Denied>) {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        // Not cloned unless a batch still decodes with the old one.
        let schemas = Arc::make_mut(&mut schemas);
        if found.is_err() && schemas.values().filter(|known| known.is_err()).count() >= DENIED_MAX {
            schemas.retain(|_, known| known.is_ok());
        }
        schemas.insert(schema, found);
    }
}

/// The schemas that `payloads` name and `known` lacks, or remembers as denied too long ago; each once.
fn missing<'a>(known: &Schemas, payloads: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vec<SchemaRef> {
    let (mut missing, mut last) = (Vec::new(), None);
    for payload in payloads {
        let Ok((schema, _)) = frame::parse(payload) else { continue };
        if last.replace(schema) == Some(schema) {
            continue;
        }
        let fresh = match known.get(&schema) {
            Some(Ok(_)) => true,
            Some(Err(denied)) => denied.at.elapsed() < DENIED_FOR,
            None => false,
        };
        if !fresh && !missing.contains(&schema) {
            missing.push(schema);
        }
    }
    missing
}

/// Decodes the payloads it was prepared for.
#[derive(Clone, Debug)]
pub struct Prepared {
    schemas: Arc<Schemas>,
}

/// What a tool reads: one of our events, or whatever else lies on a topic.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "tools hold one at a time; a box would only cost an allocation"
)]
pub enum AnyEvent {
    /// An event of the fleet.
    Fleet(FleetEvent),
    /// A record of a schema that fleetlog has no struct for.
    Foreign {
        /// The schema's full name.
        name: String,
        /// The record as JSON.
        json: serde_json::Value,
    },
}

impl Prepared {
    /// Decodes whatever it is: for tools.
    ///
    /// # Errors
    /// As [`Decode::decode`], but for events that no set has.
    pub fn decode_any(&self, payload: Option<&[u8]>) -> Result<AnyEvent, Reject> {
        let datum = self.datum(payload)?;
        if FleetEvent::types().any(|event| event.name == datum.schema.name()) {
            return self.decode(payload).map(AnyEvent::Fleet);
        }
        let name = datum.schema.name().to_owned();
        datum.skim()?;
        let json = datum.read(|schema, rest| schema.plain.read_value(rest)?.try_into())?;
        Ok(AnyEvent::Foreign { name, json })
    }

    /// The schema that wrote a payload.
    ///
    /// # Errors
    /// When the framing or the schema is unknown.
    pub fn schema<'a>(&'a self, payload: Option<&'a [u8]>) -> Result<&'a WriterSchema, Reject> {
        self.datum(payload).map(|datum| datum.schema)
    }

    fn datum<'a>(&'a self, payload: Option<&'a [u8]>) -> Result<Datum<'a>, Reject> {
        let (schema, bytes) = frame::parse(payload)?;
        match self.schemas.get(&schema) {
            Some(Ok(schema)) => Ok(Datum { schema, bytes }),
            Some(Err(denied)) => Err(Reject::new(Reason::UnknownSchema, &*denied.detail)),
            None => Err(Reject::new(
                Reason::UnknownSchema,
                format!("{schema} was not looked up: the batch was prepared without this record"),
            )),
        }
    }
}

impl Decode for Prepared {
    fn decode<S: EventSet>(&self, payload: Option<&[u8]>) -> Result<S, Reject> {
        let datum = self.datum(payload)?;
        let name = datum.schema.name();
        S::decode(name, datum).unwrap_or_else(|| Err(not_in_set::<S>(name)))
    }

    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId> {
        frame::event_id(payload)
    }
}

#[derive(Clone, Copy)]
struct Datum<'a> {
    schema: &'a WriterSchema,
    bytes: &'a [u8],
}

impl Datum<'_> {
    /// Whether it is as long as it says, and of bounded size: asked before a tree is made of it. The fast path needs no
    /// such question: it makes nothing that is not in the datum.
    fn skim(&self) -> Result<(), Reject> {
        match self.schema.skim(self.bytes) {
            Ok([]) => Ok(()),
            Ok(rest) => Err(self.undecodable(&format!("{} bytes are left over after the datum", rest.len()))),
            Err(error) => Err(self.undecodable(&error.to_string())),
        }
    }

    fn undecodable(&self, detail: &str) -> Reject {
        Reject::new(Reason::Undecodable, format!("no {:?}: {}", self.schema, shortened(detail)))
    }

    fn read<T>(
        self,
        read: impl FnOnce(&WriterSchema, &mut &[u8]) -> Result<T, apache_avro::Error>,
    ) -> Result<T, Reject> {
        let mut rest = self.bytes;
        let value = read(self.schema, &mut rest).map_err(|error| self.undecodable(&error.to_string()))?;
        if rest.is_empty() {
            return Ok(value);
        }
        Err(self.undecodable(&format!("{} bytes are left over after the datum", rest.len())))
    }
}

impl DecodeOne for Datum<'_> {
    type Error = Reject;

    fn one<E: Event>(self) -> Result<E, Reject> {
        match &self.schema.resolving {
            None => self.read(|schema, rest| schema.plain.read_deser(rest)),
            Some(resolving) => {
                self.skim()?;
                self.read(|_, rest| apache_avro::from_value(&resolving.read_value(rest)?))
            }
        }
    }
}

fn not_in_set<S: EventSet>(name: &str) -> Reject {
    let topics = S::TOPICS.join(", ");
    let detail = match FleetEvent::types().find(|event: &EventType| event.name == name) {
        Some(event) => format!("`{name}` belongs on topic `{}`, this projection reads {topics}", event.topic),
        None => format!("`{name}` is no event of {topics}"),
    };
    Reject::new(Reason::UnknownEventType, detail)
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(DETAIL_BYTES_MAX)]
}

#[cfg(test)]
#[path = "decode/tests.rs"]
mod tests;
