//! A private PostgreSQL.

use std::{
    fs::{self, Permissions},
    ops::{Deref, DerefMut},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::{
    disk::SmallDisk,
    process::{Ready, ServerCommand, ServerProcess, Stop, User, free_port, server_user},
    stack::required,
};

/// A PostgreSQL of one's own, with an empty database `fleetlog` of the superuser `fleetlog`.
///
/// It is its process: killed, stopped, paused and restarted as [`ServerProcess`] says.
#[derive(Debug)]
pub struct PostgresServer {
    // Before the disk and the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    disk: Option<SmallDisk>,
    _folder: TempDir,
    port: u16,
}

/// Every connection that a server grants to others, held until this is dropped.
#[derive(Debug)]
pub struct AllConnections(Vec<PgConnection>);

impl PostgresServer {
    /// Makes a data folder, starts the server and waits until it answers.
    ///
    /// # Errors
    /// If PostgreSQL is missing or doesn't come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with settings such as `max_connections=20`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        Self::start_on(None, options).await
    }

    /// The same with all data on a file system of its own of so many bytes: see [`Self::fill_disk`]. `None` where this
    /// process may not mount one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on_small_disk(bytes: u64, options: &[&str]) -> Result<Option<Self>> {
        let Some(disk) = SmallDisk::mount(bytes)? else { return Ok(None) };
        Self::start_on(Some(disk), options).await.map(Some)
    }

    async fn start_on(disk: Option<SmallDisk>, options: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleetlog-postgres-").tempdir()?;
        let user = server_user()?;
        let home = disk.as_ref().map_or(folder.path(), SmallDisk::path);
        for path in [folder.path(), home] {
            if let Some(user) = user {
                chown(path, Some(user.uid), Some(user.gid))?;
            }
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        let bin = PathBuf::from(required("FLEETLOG_STACK_POSTGRES_BIN"));
        let data = home.join("data");
        init(&bin, &data, user)?;
        let port = free_port()?;
        let process = ServerProcess::new(ServerCommand {
            program: bin.join("postgres"),
            args: arguments(&data, port, options),
            user,
            log: folder.path().join("postgres.log"),
            ready: Ready::when(move || async move {
                PgConnection::connect(&url_of(port, "postgres")).await.is_ok()
            }),
            // Ends sessions at once, and writes everything down.
            stop: Stop { signal: "INT", timeout: Duration::from_secs(20) },
            // After a kill the old sessions hold the shared memory until they have noticed.
            left_over: Some("shared memory"),
        });
        let mut server = Self { process, disk, _folder: folder, port };
        server.restart().await?;
        let mut connection = PgConnection::connect(&url_of(port, "postgres")).await?;
        sqlx::query("CREATE DATABASE fleetlog").execute(&mut connection).await?;
        Ok(server)
    }

    /// `postgres://fleetlog@127.0.0.1:PORT/fleetlog`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(self.port, "fleetlog")
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Fills the disk up to the last block, so that the server meets a full one (SQLSTATE 53100).
    ///
    /// # Errors
    /// If it wasn't started on a small disk.
    pub fn fill_disk(&self) -> Result<()> {
        self.disk.as_ref().context("the server is on no disk of its own")?.fill()
    }

    /// Gives the space of [`Self::fill_disk`] back.
    ///
    /// # Errors
    /// If it wasn't filled.
    pub fn empty_disk(&self) -> Result<()> {
        self.disk.as_ref().context("the server is on no disk of its own")?.empty()
    }

    /// Ends every other session and takes all connections that the server has, so that it answers everybody else that
    /// there are too many (SQLSTATE 53300).
    ///
    /// # Errors
    /// If the server doesn't answer.
    pub async fn take_all_connections(&self) -> Result<AllConnections> {
        let mut own = vec![PgConnection::connect(&self.url()).await?];
        loop {
            // Once more each time: who was thrown out may be back already.
            sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL ($1)")
                .bind(pids(&mut own).await?)
                .execute(&mut own[0])
                .await?;
            loop {
                match PgConnection::connect(&self.url()).await {
                    Ok(connection) => own.push(connection),
                    Err(error) if is_too_many(&error) => break,
                    Err(error) => return Err(error).context("taking all connections"),
                }
            }
            let all: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL ($1)",
            )
            .bind(pids(&mut own).await?)
            .fetch_one(&mut own[0])
            .await?;
            if all == 0 {
                return Ok(AllConnections(own));
            }
        }
    }
}

impl AllConnections {
    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Deref for PostgresServer {
    type Target = ServerProcess;

    fn deref(&self) -> &ServerProcess {
        &self.process
    }
}

impl DerefMut for PostgresServer {
    fn deref_mut(&mut self) -> &mut ServerProcess {
        &mut self.process
    }
}

/// Their server processes.
async fn pids(connections: &mut [PgConnection]) -> Result<Vec<i32>> {
    let mut pids = Vec::with_capacity(connections.len());
    for connection in connections {
        pids.push(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await?);
    }
    Ok(pids)
}

fn is_too_many(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("53300"))
}

fn url_of(port: u16, database: &str) -> String {
    format!("postgres://fleetlog@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// `--no-sync`: the folder lives as long as the test.
fn init(bin: &Path, data: &Path, user: Option<User>) -> Result<()> {
    let program = bin.join("initdb");
    let mut command = Command::new(&program);
    command.arg("-D").arg(data).args([
        "-U",
        "fleetlog",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]);
    // initdb looks at its own folder; the caller's may not be readable for the user.
    command.current_dir("/");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("initdb failed with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn arguments(data: &Path, port: u16, options: &[&str]) -> Vec<String> {
    let mut args = vec!["-D".to_owned(), data.display().to_string(), "-p".to_owned(), port.to_string()];
    let usual =
        ["listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=32MB", "timezone=UTC"];
    for option in usual.iter().chain(options) {
        args.extend(["-c".to_owned(), (*option).to_owned()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_survives_a_kill() {
        let mut server = PostgresServer::start().await.unwrap();
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        sqlx::query("CREATE TABLE t (a int)").execute(&mut connection).await.unwrap();
        sqlx::query("INSERT INTO t VALUES (7)").execute(&mut connection).await.unwrap();
        server.kill();
        assert!(PgConnection::connect(&server.url()).await.is_err());
        server.restart().await.unwrap();
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        let (a,): (i32,) = sqlx::query_as("SELECT a FROM t").fetch_one(&mut connection).await.unwrap();
        assert_eq!(a, 7);
    }

    #[tokio::test]
    async fn a_server_out_of_connections_says_so_until_they_are_given_back() {
        let server = PostgresServer::start_with(&["max_connections=12"]).await.unwrap();
        let mut victim = PgConnection::connect(&server.url()).await.unwrap();
        let all = server.take_all_connections().await.unwrap();
        assert!(all.count() > 5, "{}", all.count());
        assert!(is_too_many(&PgConnection::connect(&server.url()).await.unwrap_err()));
        assert!(sqlx::query("SELECT 1").execute(&mut victim).await.is_err());
        drop(all);
        let again = async {
            while PgConnection::connect(&server.url()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_met_for_real_and_passes() {
        let Some(server) = PostgresServer::start_on_small_disk(160 << 20, &[]).await.unwrap() else {
            println!("this process may not mount file systems; not tested");
            return;
        };
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        sqlx::query("CREATE TABLE t (a text)").execute(&mut connection).await.unwrap();
        server.fill_disk().unwrap();
        let fill = "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
        let error = sqlx::query(fill).execute(&mut connection).await.unwrap_err();
        assert_eq!(
            error.as_database_error().and_then(|error| error.code()).as_deref(),
            Some("53100"),
            "{error}"
        );
        server.empty_disk().unwrap();
        sqlx::query(fill).execute(&mut connection).await.unwrap();
    }
}
