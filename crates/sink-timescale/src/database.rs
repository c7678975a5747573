//! One process's way to the database.

use std::sync::Arc;

use fleetlog_projection::{EntityRow, HistoryRow, SinkError};

use crate::{
    SqlSink,
    connections::{ConnectionSettings, Connections, Lease},
    fault::Failure,
};

/// The database that this process writes history to. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Database {
    connections: Arc<Connections>,
}

impl Database {
    /// Looks at the settings; connects when first used.
    ///
    /// # Errors
    /// Permanent when the URL is none or no connections are allowed.
    pub fn new(settings: &ConnectionSettings) -> Result<Self, SinkError> {
        Ok(Self { connections: Arc::new(Connections::new(settings)?) })
    }

    /// A sink for rows of type `W`.
    #[must_use]
    pub fn sink<W: HistoryRow>(&self) -> SqlSink<W> {
        SqlSink::new(self.clone())
    }

    /// A sink for a fold: its states and rows of type `W`, one per entity.
    #[must_use]
    pub fn fold_sink<W: EntityRow>(&self) -> SqlSink<W> {
        SqlSink::of_fold(self.clone())
    }

    /// Closes idle connections; for a tidy end of the process.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    pub(crate) async fn lease(&self) -> Result<Lease<'_>, Failure> {
        self.connections.lease().await
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }
}
