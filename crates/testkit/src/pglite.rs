//! A private PostgreSQL with TimescaleDB, in WASM.

use std::{fs, time::Duration};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    process::{Ready, ServerCommand, ServerProcess, Stop, free_port, port_answers},
    stack::required,
};

/// PostgreSQL 17 with TimescaleDB in WASM, in memory, empty.
///
/// One session only: a second connection waits until the first has closed, so pools need `max_connections(1)`.
/// No `COPY` over the wire. Good for migrations; everything else belongs on a real PostgreSQL.
#[derive(Debug)]
pub struct PgliteServer {
    // Before the folder: fields drop in order, and the process ends before its files go.
    _process: ServerProcess,
    _folder: TempDir,
    port: u16,
}

impl PgliteServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// If Node.js or the package is missing (`make stack` fetches it), or it doesn't come up.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleetlog-pglite-").tempdir()?;
        let port = free_port()?;
        let log = folder.path().join("pglite.log");
        let ready_log = log.clone();
        let is_ready = move || {
            let says_so = fs::read_to_string(&ready_log).is_ok_and(|text| text.contains("pglite: ready"));
            async move { says_so && port_answers(port).await }
        };
        let mut process = ServerProcess::new(ServerCommand {
            program: "node".into(),
            args: vec![
                required("FLEETLOG_STACK_PGLITE_SERVER"),
                port.to_string(),
                required("FLEETLOG_STACK_PGLITE"),
            ],
            user: None,
            log,
            ready: Ready::when(is_ready),
            stop: Stop { signal: "TERM", timeout: Duration::from_secs(10) },
            left_over: None,
        });
        process.restart().await?;
        Ok(Self { _process: process, _folder: folder, port })
    }

    /// Its URL. TimescaleDB is created as an extension already.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres:pglite@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Connection, Executor, PgConnection};

    #[tokio::test]
    async fn hypertables_are_real_and_connections_follow_one_another() {
        let server = PgliteServer::start().await.unwrap();
        let mut first = PgConnection::connect(&server.url()).await.unwrap();
        first.execute("CREATE TABLE m (at timestamptz NOT NULL, v int)").await.unwrap();
        first.execute("SELECT create_hypertable('m', 'at')").await.unwrap();
        sqlx::query("INSERT INTO m VALUES (now(), $1)").bind(5).execute(&mut first).await.unwrap();
        first.close().await.unwrap();

        // The same statement names come again on a new connection: the session was put back.
        let mut second = PgConnection::connect(&server.url()).await.unwrap();
        let (v,): (i32,) =
            sqlx::query_as("SELECT v FROM m WHERE v = $1").bind(5).fetch_one(&mut second).await.unwrap();
        assert_eq!(v, 5);
        let refused = sqlx::query("SELECT no_such_column FROM m").execute(&mut second).await;
        assert!(refused.is_err());
        let (chunks,): (i64,) = sqlx::query_as("SELECT count(*) FROM timescaledb_information.chunks")
            .fetch_one(&mut second)
            .await
            .unwrap();
        assert_eq!(chunks, 1);
    }
}
