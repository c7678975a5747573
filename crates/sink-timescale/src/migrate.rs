//! Brings the schema up to date, one migration at a time, each in one transaction.

use std::{fmt, time::Duration};

use fleetlog_projection::{Fault, SinkError};
use sqlx::Row;
use uuid::Uuid;

use crate::{
    Database,
    connections::Lease,
    fault::{Failure, Meaning},
    migrations::{MIGRATIONS, Migration},
};

/// Which kind of database it is. Decided by the first migration and remembered: tables do not change their kind when
/// the extension comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// PostgreSQL: partitioned tables.
    Plain,
    /// With the extension: hypertables.
    Timescale,
}

impl Flavour {
    /// As the database remembers it and as migrations mark their lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Timescale => "timescale",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Plain, Self::Timescale].into_iter().find(|flavour| flavour.as_str() == text)
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain partitioned tables",
            Self::Timescale => "TimescaleDB hypertables",
        })
    }
}

/// Why the schema could not be read or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database itself.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// Somebody with a newer fleetlog was here.
    #[error(
        "the database's schema is at version {found}, newer than the {known} this fleetlog knows: upgrade fleetlog"
    )]
    Newer {
        /// The database's version.
        found: i32,
        /// The last migration compiled in.
        known: i32,
    },
    /// An applied migration is not the one compiled in.
    #[error(
        "migration {version:04}_{name} was applied with other contents than this fleetlog has: migrations are add-only; \
         put the file back and write a new one, or point `postgres.url` at another database"
    )]
    Changed {
        /// Its number.
        version: i32,
        /// Its name.
        name: String,
    },
    /// Migrations are missing.
    #[error("the database's schema is at version {found} of {known}: run `fleetlog migrate`")]
    Older {
        /// The database's version; 0 if it is empty.
        found: i32,
        /// The last migration compiled in.
        known: i32,
    },
    /// A migration was rolled back.
    #[error("migration {version:04}_{name} failed and was rolled back: {detail}")]
    Failed {
        /// Its number.
        version: i32,
        /// Its name.
        name: &'static str,
        /// What the server said.
        detail: String,
    },
}

impl From<MigrateError> for SinkError {
    /// A schema that does not fit stays so until a person acts.
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Store(error) => error,
            other => Self::new(Fault::Permanent, format!("postgresql: {other}")),
        }
    }
}

/// What `migrate` would do, or has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The kind of tables.
    pub flavour: Flavour,
    /// The database's version; 0 if it is empty.
    pub version: i32,
    /// What is missing, in order.
    pub pending: Vec<&'static Migration>,
}

impl Plan {
    /// Whether the schema is the one this fleetlog writes to.
    ///
    /// # Errors
    /// [`MigrateError::Older`].
    pub fn require_current(&self) -> Result<(), MigrateError> {
        match self.pending.last() {
            None => Ok(()),
            Some(last) => Err(MigrateError::Older { found: self.version, known: last.version }),
        }
    }
}

/// Applies migrations.
#[derive(Clone, Debug)]
pub struct Migrator {
    database: Database,
    migrations: &'static [Migration],
}

/// Servers that migrate at the same time take turns by this number (an advisory lock).
pub(crate) const TURN: i64 = 0x666c_6565_746c_6f67;
/// A migration may build an index over years of history, but not for ever.
const MIGRATION_MAX: Duration = Duration::from_hours(2);

impl Migrator {
    /// For this fleetlog's schema.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { database: database.clone(), migrations: MIGRATIONS }
    }

    /// Only up to `version`: an older schema, for tests of what meets one.
    #[must_use]
    pub fn up_to(self, version: i32) -> Self {
        let count = self.migrations.iter().take_while(|m| m.version <= version).count();
        Self { migrations: &self.migrations[..count], ..self }
    }

    /// What is missing. Changes nothing.
    ///
    /// # Errors
    /// When the database cannot be asked, is newer, or holds a migration of other contents.
    pub async fn plan(&self) -> Result<Plan, MigrateError> {
        let mut lease = self.database.lease().await.map_err(store("read of the schema's version"))?;
        let plan = self.plan_on(&mut lease).await?;
        lease.give_back();
        Ok(plan)
    }

    /// Applies what is missing and says what it applied. Running it again, or on several servers at a time, is safe.
    ///
    /// # Errors
    /// As [`Self::plan`], or when a migration fails: then those before it are applied.
    pub async fn apply(&self) -> Result<Plan, MigrateError> {
        if self.plan().await?.version == 0 {
            self.try_extension().await?;
        }
        let mut lease = self.database.lease().await.map_err(store("migrate"))?;
        self.take_turn(&mut lease).await.map_err(store("wait for another server's migration"))?;
        let plan = self.plan_on(&mut lease).await?;
        for migration in &plan.pending {
            apply_one(&mut lease, migration, plan.flavour).await.map_err(|failure| MigrateError::Failed {
                version: migration.version,
                name: migration.name,
                detail: failure.refusal(),
            })?;
        }
        // The turn ends with the connection.
        lease.close().await;
        Ok(plan)
    }

    /// Where the extension is installed on the server but not yet in this database: puts it there, if that is allowed
    /// and it works; else the tables become plain ones, which is no error.
    async fn try_extension(&self) -> Result<(), MigrateError> {
        let mut lease = self.database.lease().await.map_err(store("look for TimescaleDB"))?;
        if !matches!(
            extension(&mut lease).await.map_err(store("look for TimescaleDB"))?,
            Extension::Available
        ) {
            lease.give_back();
            return Ok(());
        }
        match lease.run("CREATE EXTENSION IF NOT EXISTS timescaledb").await {
            Ok(()) => lease.give_back(),
            Err(failure) if failure.meaning() == Meaning::Transient => {
                return Err(store("create extension timescaledb")(failure));
            }
            Err(failure) => {
                tracing::warn!(error = %failure, "TimescaleDB is installed but cannot be used: tables will be plain");
            }
        }
        Ok(())
    }

    async fn take_turn(&self, lease: &mut Lease<'_>) -> Result<(), Failure> {
        lease.run(&format!("SELECT pg_advisory_lock({TURN})")).await?;
        lease
            .run(
                "CREATE TABLE IF NOT EXISTS fleetlog_migrations (
                     version    integer     PRIMARY KEY,
                     name       text        NOT NULL,
                     checksum   uuid        NOT NULL,
                     flavour    text        NOT NULL,
                     applied_at timestamptz NOT NULL DEFAULT now(),
                     applied_by text        NOT NULL
                 );
                 COMMENT ON TABLE fleetlog_migrations IS 'migrations that were applied, and by which fleetlog'",
            )
            .await
    }

    async fn plan_on(&self, lease: &mut Lease<'_>) -> Result<Plan, MigrateError> {
        let applied = applied(lease).await.map_err(store("read of the schema's version"))?;
        for row in &applied {
            let Some(known) = self.migrations.iter().find(|m| m.version == row.version) else {
                let known = self.migrations.last().map_or(0, |m| m.version);
                let found = applied.iter().map(|row| row.version).max().unwrap_or_default();
                return Err(MigrateError::Newer { found, known });
            };
            if known.checksum() != row.checksum {
                return Err(MigrateError::Changed { version: row.version, name: row.name.clone() });
            }
        }
        let flavour = match applied.first() {
            Some(first) => first.flavour,
            None => match extension(lease).await.map_err(store("look for TimescaleDB"))? {
                Extension::Created => Flavour::Timescale,
                Extension::Available | Extension::Absent => Flavour::Plain,
            },
        };
        let version = applied.iter().map(|row| row.version).max().unwrap_or_default();
        let missing = |m: &&Migration| applied.iter().all(|row| row.version != m.version);
        Ok(Plan { flavour, version, pending: self.migrations.iter().filter(missing).collect() })
    }
}

struct Applied {
    version: i32,
    name: String,
    checksum: Uuid,
    flavour: Flavour,
}

async fn applied(lease: &mut Lease<'_>) -> Result<Vec<Applied>, Failure> {
    let home = lease.home();
    let there: bool = home
        .bounded(
            sqlx::query_scalar("SELECT to_regclass('fleetlog_migrations') IS NOT NULL")
                .fetch_one(lease.connection()),
        )
        .await?;
    if !there {
        return Ok(Vec::new());
    }
    let rows = home
        .bounded(
            sqlx::query("SELECT version, name, checksum, flavour FROM fleetlog_migrations ORDER BY version")
                .fetch_all(lease.connection()),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let flavour: String = row.try_get("flavour")?;
            let flavour = Flavour::parse(&flavour).ok_or_else(|| {
                sqlx::Error::Decode(format!("`{flavour}` is no flavour of database").into())
            })?;
            Ok(Applied {
                version: row.try_get("version")?,
                name: row.try_get("name")?,
                checksum: row.try_get("checksum")?,
                flavour,
            })
        })
        .collect()
}

enum Extension {
    Absent,
    Available,
    Created,
}

async fn extension(lease: &mut Lease<'_>) -> Result<Extension, Failure> {
    let sql = "SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'timescaledb'";
    let home = lease.home();
    let created: Option<bool> =
        home.bounded(sqlx::query_scalar(sql).fetch_optional(lease.connection())).await?;
    Ok(match created {
        None => Extension::Absent,
        Some(false) => Extension::Available,
        Some(true) => Extension::Created,
    })
}

async fn apply_one(lease: &mut Lease<'_>, migration: &Migration, flavour: Flavour) -> Result<(), Failure> {
    tracing::info!(
        version = migration.version,
        name = migration.name,
        flavour = flavour.as_str(),
        "migrating"
    );
    lease.run("BEGIN").await?;
    lease.run_for(&migration.sql_for(flavour), MIGRATION_MAX).await?;
    let insert = "INSERT INTO fleetlog_migrations (version, name, checksum, flavour, applied_by)
                  VALUES ($1, $2, $3, $4, $5)";
    let query = sqlx::query(insert)
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.checksum())
        .bind(flavour.as_str())
        .bind(concat!("fleetlog ", env!("CARGO_PKG_VERSION")));
    let home = lease.home();
    home.bounded(query.execute(lease.connection())).await?;
    lease.run("COMMIT").await
}

fn store(tried: &'static str) -> impl Fn(Failure) -> MigrateError {
    move |failure| MigrateError::Store(failure.into_sink_error(tried))
}
