//! Avro on the wire: framings, writer schemas and where they come from, encoding and decoding, the registry client.
//!
//! Guarantees:
//! - both framings (Confluent, Avro single-object) are always readable, whichever is configured for writing;
//! - a record written with another version of a schema is read as that schema and ours say (defaults, aliases, enum
//!   fallbacks), whether the version is compiled in or came from a registry or the schema topic;
//! - no payload, however hostile, makes decoding panic, recurse without bound, or hold more than 8 MiB and 64 bytes
//!   for each of its own (with a foreign schema: a tree of values of at most 32 MiB while it is read); `tests/fuzz`
//!   measures it;
//! - a schema that cannot be looked up *now* is an error to wait on; only a definite denial rejects the record.
//!
//! It does not check values (see `EventSet::validate`) and knows nothing about Kafka.

mod decode;
mod encode;
mod registry;
mod schema;
mod source;

pub mod by_hand;
pub mod compat;
pub mod frame;
pub mod reference;

pub use decode::{AnyEvent, Decoder, Prepared, Unavailable};
pub use encode::{EncodeError, Encoder};
pub use frame::SchemaRef;
pub use registry::{RegistryAuth, RegistryClient, RegistryError, RegistrySettings, subject};
pub use schema::{
    Fingerprint, SCHEMA_BYTES_MAX, SchemaError, SchemaFile, WriterSchema, builtin_files, builtin_schemas,
    fingerprint, newest,
};
pub use source::{FirstFound, Lookup, LookupError, NoSource, SchemaSource};
