//! Connections to the database: few, bounded in number and in time, and used again only after a finished transaction.
//!
//! A pool of our own in 60 lines, because of one rule: a connection that failed, or was left in the middle of a
//! transaction, is dropped (closing its socket) and never cleaned up for the next user. Cleaning up talks to a server
//! that may hang, and holds a place in the pool while it does.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fleetlog_projection::{Fault, SinkError};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::fault::Failure;

/// How to reach the database and how long to wait for it.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: String,
    /// Connections of one process; further work waits for one.
    pub connections_max: usize,
    /// How long one statement, one connect, or waiting for a free connection may take.
    pub timeout: Duration,
}

/// What the server's own timeout has in advance of ours, so that a living server answers before we hang up.
const HEAD_START: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Connections {
    options: PgConnectOptions,
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
    timeout: Duration,
    checked: AtomicBool,
    /// The server has taken our password before.
    admitted: AtomicBool,
}

impl Connections {
    /// Opens nothing yet.
    pub(crate) fn new(settings: &ConnectionSettings) -> Result<Self, SinkError> {
        let options: PgConnectOptions = settings.url.parse().map_err(|error: sqlx::Error| {
            // The URL holds a password, so it is not repeated here.
            SinkError::caused(Fault::Permanent, "`postgres.url` is no URL of a PostgreSQL database", error)
        })?;
        if settings.connections_max == 0 {
            return Err(SinkError::new(Fault::Permanent, "`postgres.connections_max` is 0; set at least 1"));
        }
        Ok(Self {
            options: options.application_name("fleetlog").disable_statement_logging(),
            idle: Mutex::default(),
            permits: Semaphore::new(settings.connections_max),
            timeout: settings.timeout,
            checked: AtomicBool::new(false),
            admitted: AtomicBool::new(false),
        })
    }

    /// True for the first who asks: sinks share the database, which is described once.
    pub(crate) fn first_check(&self) -> bool {
        !self.checked.swap(true, Ordering::Relaxed)
    }

    /// A connection of one's own until it is given back or dropped. One operation takes one connection at a time, so
    /// lanes that wait for each other's cannot lock up.
    pub(crate) async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let permit = match timeout(self.timeout, self.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            // The semaphore is never closed; both are "none came free".
            Ok(Err(_)) | Err(_) => return Err(Failure::TimedOut(self.timeout)),
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lease { home: self, connection, _permit: permit })
    }

    /// Cut off in the middle, an exchange of passwords looks to the server like a wrong password. So one that was taken
    /// before is waited for, and one that never was is tried twice.
    async fn connect(&self) -> Result<PgConnection, Failure> {
        let mut connected = self.bounded(self.options.connect()).await;
        if connected.as_ref().is_err_and(Failure::is_password_refused) {
            connected = self.bounded(self.options.connect()).await;
        }
        match connected {
            Ok(connection) => {
                self.admitted.store(true, Ordering::Relaxed);
                Ok(connection)
            }
            Err(failure) if failure.is_password_refused() && self.admitted.load(Ordering::Relaxed) => {
                Err(Failure::RefusedLater(failure.refusal()))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Waits for the server's answer, at most as long as a statement may take and a little more.
    pub(crate) async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Failure> {
        bounded_by(self.timeout + HEAD_START, answer).await
    }

    /// How long a statement may wait for a lock, in milliseconds.
    pub(crate) fn lock_timeout_ms(&self) -> i64 {
        i64::try_from(self.timeout.as_millis() / 2).unwrap_or(i64::MAX)
    }

    /// Says goodbye on every idle connection.
    pub(crate) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            // A server that does not answer a goodbye is left all the same.
            let _ = self.bounded(connection.close()).await;
        }
    }

    /// After a failure the other idle connections are most likely dead too: better one new connect than one failure
    /// each.
    pub(crate) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn bounded_by<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    match timeout(patience, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::TimedOut(patience)),
    }
}

/// A connection in use. Dropping it closes the socket; the server rolls back what was open.
pub(crate) struct Lease<'a> {
    home: &'a Connections,
    connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl<'a> Lease<'a> {
    /// For others to use: only after COMMIT, ROLLBACK or a statement of its own came back well.
    pub(crate) fn give_back(self) {
        let Self { home, connection, _permit } = self;
        home.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Where it came from.
    pub(crate) fn home(&self) -> &'a Connections {
        self.home
    }

    /// Runs SQL without parameters, several statements if need be, in one round trip.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.run_for(sql, self.home.timeout + HEAD_START).await
    }

    /// The same with patience of one's own.
    pub(crate) async fn run_for(&mut self, sql: &str, patience: Duration) -> Result<(), Failure> {
        let answer = sqlx::Executor::execute(&mut self.connection, sqlx::raw_sql(sql));
        bounded_by(patience, answer).await.map(|_| ())
    }

    /// Says goodbye; the connection's locks end with it.
    pub(crate) async fn close(self) {
        let Self { home, connection, _permit } = self;
        // A server that does not answer a goodbye is left all the same.
        let _ = home.bounded(connection.close()).await;
    }

    /// Begins a transaction whose reads are all of one moment.
    pub(crate) async fn begin_read(&mut self) -> Result<(), Failure> {
        let statement_ms = self.home.timeout.as_millis();
        self.run(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {statement_ms}"
        ))
        .await
    }

    /// Begins a transaction with the time limits of its statements.
    pub(crate) async fn begin(&mut self) -> Result<(), Failure> {
        let (statement_ms, lock_ms) = (self.home.timeout.as_millis(), self.home.lock_timeout_ms());
        self.run(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {statement_ms}; \
             SET LOCAL lock_timeout = {lock_ms}; SET LOCAL idle_in_transaction_session_timeout = {}",
            2 * statement_ms
        ))
        .await
    }
}
