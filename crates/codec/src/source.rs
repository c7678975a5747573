//! Where writer schemas come from: the registry, the schema topic, and both one after the other.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{SchemaRef, WriterSchema};

/// A look-up under way.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Arc<WriterSchema>, LookupError>> + Send + 'a>>;

/// Why a look-up gave no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Denied, or absent for good: the record can be rejected.
    #[error("{0}")]
    NotFound(String),
    /// Cannot be said now: wait and ask again.
    #[error("{0}")]
    Unavailable(String),
}

/// Finds the schema that wrote a record.
pub trait SchemaSource: Send + Sync + 'static {
    /// By a registry's id. `NotFound` where this source knows no ids.
    fn by_id(&self, id: u32) -> Lookup<'_>;
    /// By fingerprint. `NotFound` only if the schema is absent at a time later than the record that names it.
    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_>;
}

impl dyn SchemaSource {
    /// By what the record's prefix says.
    pub fn find(&self, schema: SchemaRef) -> Lookup<'_> {
        match schema {
            SchemaRef::Id(id) => self.by_id(id),
            SchemaRef::Fingerprint(fingerprint) => self.by_fingerprint(fingerprint),
        }
    }
}

/// No source besides the compiled-in schemas (which are found by fingerprint without asking anybody).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSource;

impl SchemaSource for NoSource {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        let detail = format!("schema id {id} names a schema registry, and none is configured (registry.url)");
        Box::pin(async { Err(LookupError::NotFound(detail)) })
    }
    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        let detail = format!(
            "no compiled-in schema has fingerprint {fingerprint:016x}, and no other source is configured"
        );
        Box::pin(async { Err(LookupError::NotFound(detail)) })
    }
}

/// Several sources, asked in order: the first that has the schema wins. Absent only if every one says so.
#[derive(Clone)]
pub struct FirstFound(pub Vec<Arc<dyn SchemaSource>>);

impl FirstFound {
    async fn find(&self, schema: SchemaRef) -> Result<Arc<WriterSchema>, LookupError> {
        let (mut absent, mut unavailable) = (Vec::new(), None);
        for source in &self.0 {
            match source.find(schema).await {
                Ok(found) => return Ok(found),
                Err(LookupError::NotFound(detail)) => absent.push(detail),
                Err(error) => unavailable = unavailable.or(Some(error)),
            }
        }
        match unavailable {
            Some(error) => Err(error),
            None => Err(LookupError::NotFound(absent.join("; "))),
        }
    }
}

impl SchemaSource for FirstFound {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        Box::pin(self.find(SchemaRef::Id(id)))
    }
    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        Box::pin(self.find(SchemaRef::Fingerprint(fingerprint)))
    }
}
