//! Events to bytes.

use std::{collections::HashMap, sync::OnceLock};

use fleetlog_event::{Event, EventVisitor, FleetEvent};

use crate::{
    SchemaRef, frame,
    schema::{newest_all, newest_of},
};

/// Why an event was not encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Its schema has no id yet: register it first ([`Encoder::set_id`]).
    #[error("the schema of `{0}` is not registered yet")]
    NotRegistered(&'static str),
    /// There is no schema file for it.
    #[error("`{0}` has no schema file under schemas/")]
    NoSchema(&'static str),
    /// The struct does not fit its schema.
    #[error("`{event}` does not fit its schema: {detail}")]
    Misfit {
        /// Full name of the event.
        event: &'static str,
        /// What did not fit.
        detail: String,
    },
}

/// Encodes events with the newest version of their schemas, framed for one log. Cheap to use from many threads.
#[derive(Debug)]
pub struct Encoder {
    /// What stands before each event's datum; unset until the registry gave an id.
    prefixes: HashMap<&'static str, OnceLock<SchemaRef>>,
}

impl Encoder {
    /// Frames by fingerprint (Avro single-object encoding): needs no registry.
    #[must_use]
    pub fn single_object() -> Self {
        let of = |(name, newest): (_, &crate::schema::Newest)| {
            (name, OnceLock::from(SchemaRef::Fingerprint(newest.written.fingerprint())))
        };
        Self { prefixes: newest_all().map(of).collect() }
    }

    /// Frames by schema id (Confluent). Each event's id has to be set before the event is encoded.
    #[must_use]
    pub fn confluent() -> Self {
        Self { prefixes: newest_all().map(|(name, _)| (name, OnceLock::new())).collect() }
    }

    /// Tells the id under which the newest schema of `event` (full name) is registered. The first one stays.
    pub fn set_id(&self, event: &str, id: u32) {
        if let Some(prefix) = self.prefixes.get(event) {
            prefix.get_or_init(|| SchemaRef::Id(id));
        }
    }

    /// What stands before the datums of `event` (full name), if that is known.
    #[must_use]
    pub fn schema_ref(&self, event: &str) -> Option<SchemaRef> {
        self.prefixes.get(event)?.get().copied()
    }

    /// Appends the framed event to `out`; on error `out` is as before.
    ///
    /// # Errors
    /// When the schema is not registered yet, or the struct does not fit it.
    pub fn encode<E: Event>(&self, event: &E, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (newest, prefix) = match (newest_of::<E>(), self.prefixes.get(E::NAME)) {
            (Some(newest), Some(prefix)) => (newest, prefix),
            _ => return Err(EncodeError::NoSchema(E::NAME)),
        };
        let prefix = prefix.get().ok_or(EncodeError::NotRegistered(E::NAME))?;
        let start = out.len();
        frame::write(*prefix, out);
        newest.writer.write_ser(out, event).map(|_| ()).map_err(|error| {
            out.truncate(start);
            EncodeError::Misfit { event: E::NAME, detail: error.to_string() }
        })
    }

    /// [`Encoder::encode`] for an event of any type.
    ///
    /// # Errors
    /// As there.
    pub fn encode_any(&self, event: &FleetEvent, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        struct Encode<'a>(&'a Encoder, &'a mut Vec<u8>);
        impl EventVisitor for Encode<'_> {
            type Output = Result<(), EncodeError>;
            fn event<E: Event>(self, event: &E) -> Self::Output {
                self.0.encode(event, self.1)
            }
        }
        event.visit(Encode(self, out))
    }
}
