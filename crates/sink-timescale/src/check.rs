//! The look at the database at start: can it keep what fleetlog promises.

use std::fmt;

use fleetlog_projection::{Fault, SinkError};
use sqlx::Row;

use crate::{Database, Migrator, connections::Lease, fault::Failure, migrate::Flavour};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Such as `15.8`.
    pub version: String,
    /// Such as 150008.
    pub version_number: i32,
    /// The extension's version, if it is in this database.
    pub timescale: Option<String>,
    /// The kind of fleetlog's tables.
    pub flavour: Flavour,
    /// The database's encoding.
    pub encoding: String,
    /// Whether a commit that was answered survives a crash of the server (`synchronous_commit` and `fsync`).
    pub durable: bool,
}

impl fmt::Display for Server {
    /// The line that is said at start.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.timescale {
            Some(timescale) => {
                write!(f, "PostgreSQL {} with TimescaleDB {timescale}: {}", self.version, self.flavour)
            }
            None => write!(f, "PostgreSQL {} without TimescaleDB: {}", self.version, self.flavour),
        }
    }
}

/// The oldest PostgreSQL whose partitioning this schema needs, as `server_version_num`.
pub const POSTGRES_VERSION_MIN: i32 = 140_000;

impl Database {
    /// Looks at server and schema.
    ///
    /// # Errors
    /// Permanent when the schema is older or newer than this fleetlog's, the encoding is not UTF8, or the server too
    /// old; Transient when it cannot be reached.
    pub async fn check(&self) -> Result<Server, SinkError> {
        let plan = Migrator::new(self).plan().await?;
        let failed = |failure: Failure| failure.into_sink_error("look at the server");
        let mut lease = self.lease().await.map_err(failed)?;
        let server = look(&mut lease, plan.flavour).await.map_err(failed)?;
        lease.give_back();
        // Before the schema: on a server that is too old `fleetlog migrate` would be no help.
        server.require_usable()?;
        plan.require_current()?;
        if self.connections().first_check() {
            tracing::info!("{server}");
            if !server.durable {
                tracing::warn!(
                    "`synchronous_commit` or `fsync` is off: a crash of the server loses commits it has answered; \
                     lanes notice and write them again, but set both on"
                );
            }
        }
        Ok(server)
    }
}

impl Server {
    fn require_usable(&self) -> Result<(), SinkError> {
        if self.version_number < POSTGRES_VERSION_MIN {
            let what =
                format!("postgresql: the server is version {}; fleetlog needs 14 or later", self.version);
            return Err(SinkError::new(Fault::Permanent, what));
        }
        if self.encoding != "UTF8" {
            let what = format!(
                "postgresql: the database's encoding is {}; make it with `ENCODING 'UTF8' TEMPLATE template0`",
                self.encoding
            );
            return Err(SinkError::new(Fault::Permanent, what));
        }
        Ok(())
    }
}

async fn look(lease: &mut Lease<'_>, flavour: Flavour) -> Result<Server, Failure> {
    let sql = "SELECT current_setting('server_version')          AS version,
                      current_setting('server_version_num')::int AS version_number,
                      current_setting('server_encoding')         AS encoding,
                      current_setting('synchronous_commit') <> 'off' AND current_setting('fsync') = 'on' AS durable,
                      (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescale";
    let home = lease.home();
    let row = home.bounded(sqlx::query(sql).fetch_one(lease.connection())).await?;
    let read = || -> Result<Server, sqlx::Error> {
        Ok(Server {
            version: row.try_get("version")?,
            version_number: row.try_get("version_number")?,
            timescale: row.try_get("timescale")?,
            flavour,
            encoding: row.try_get("encoding")?,
            durable: row.try_get("durable")?,
        })
    };
    Ok(read()?)
}
