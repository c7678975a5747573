//! A private PostgreSQL.

use std::{
    fs::{self, Permissions},
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
    process::{ServerCommand, ServerProcess, User, free_port, server_user},
    stack::required,
};

/// A PostgreSQL of one's own, with an empty database `fleetlog` of the superuser `fleetlog`.
#[derive(Debug)]
pub struct PostgresServer {
    // Before the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    folder: TempDir,
    port: u16,
}

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
        let folder = tempfile::Builder::new().prefix("fleetlog-postgres-").tempdir()?;
        let user = server_user()?;
        if let Some(user) = user {
            chown(folder.path(), Some(user.uid), Some(user.gid))?;
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
        let bin = PathBuf::from(required("FLEETLOG_STACK_POSTGRES_BIN"));
        let data = folder.path().join("data");
        init(&bin, &data, user)?;
        let port = free_port()?;
        let mut server = Self {
            process: ServerProcess::new(ServerCommand {
                program: bin.join("postgres"),
                args: arguments(&data, port, options),
                user,
                log: folder.path().join("postgres.log"),
            }),
            folder,
            port,
        };
        server.restart().await?;
        server.make_database().await?;
        Ok(server)
    }

    /// `postgres://fleetlog@127.0.0.1:PORT/fleetlog`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("fleetlog")
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// `kill -9` of the server; its other processes notice and end by themselves.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in good order, breaking connections off.
    ///
    /// # Errors
    /// If it doesn't end within twenty seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop("INT", Duration::from_secs(20)).await
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`], on the same port and data; returns once it answers.
    ///
    /// # Errors
    /// If it is running, or doesn't come up.
    pub async fn restart(&mut self) -> Result<()> {
        // After a kill the old backends hold the shared memory until they have noticed; PostgreSQL refuses to start
        // meanwhile.
        const TRIES: usize = 20;
        let url = self.url_of("postgres");
        let answers = || async { PgConnection::connect(&url).await.is_ok() };
        for _ in 1..TRIES {
            match self.process.start(answers).await {
                Err(error) if error.to_string().contains("shared memory") => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                outcome => return outcome,
            }
        }
        self.process.start(answers).await
    }

    /// Freezes the server process: it takes no new connections. Sessions that are open go on, since each is a
    /// process of its own.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// If it isn't running.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://fleetlog@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    async fn make_database(&self) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url_of("postgres")).await?;
        sqlx::query("CREATE DATABASE fleetlog").execute(&mut connection).await?;
        Ok(())
    }
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
}
