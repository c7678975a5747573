//! A private PostgreSQL.

use std::{
    fs::{self, Permissions},
    io::Write as _,
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
    ServerIdentity,
    disk::SmallDisk,
    process::{Ready, ServerCommand, ServerProcess, Stop, User, free_port, send_signal, server_user},
    stack::{percent_encoded, required},
};

/// A PostgreSQL of one's own, with an empty database `fleetlog` of the superuser `fleetlog`.
///
/// It is its process: killed, stopped, paused and restarted as [`ServerProcess`] says.
#[derive(Debug)]
pub struct PostgresServer {
    // Before the disk and the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    disk: Option<SmallDisk>,
    folder: TempDir,
    user: Option<User>,
    url: String,
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
        Self::start_on(None, None, options).await
    }

    /// One that speaks TLS alone and asks the superuser `fleetlog` for this password.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_secure(identity: &ServerIdentity, password: &str) -> Result<Self> {
        Self::start_on(None, Some((identity, password)), &[]).await
    }

    /// The same with all data on a file system of its own of so many bytes: see [`Self::fill_disk`]. `None` where this
    /// process may not mount one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on_small_disk(bytes: u64, options: &[&str]) -> Result<Option<Self>> {
        let Some(disk) = SmallDisk::mount(bytes)? else { return Ok(None) };
        Self::start_on(Some(disk), None, options).await.map(Some)
    }

    async fn start_on(
        disk: Option<SmallDisk>,
        secure: Option<(&ServerIdentity, &str)>,
        options: &[&str],
    ) -> Result<Self> {
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
        init(&bin, &data, user, secure.map(|(_, password)| password))?;
        let password = secure.map(|(_, password)| percent_encoded(password));
        let port = free_port()?;
        let url_of = move |database: &str| match &password {
            None => url_of(port, database),
            Some(password) => {
                format!("postgres://fleetlog:{password}@localhost:{port}/{database}?sslmode=require")
            }
        };
        let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        if let Some((identity, _)) = secure {
            options.extend(tls_options(identity, folder.path(), user)?);
        }
        let server_url = url_of("postgres");
        let ready_url = server_url.clone();
        let process = ServerProcess::new(ServerCommand {
            program: bin.join("postgres"),
            args: arguments(&data, port, &options),
            user,
            log: folder.path().join("postgres.log"),
            ready: Ready::when(move || {
                let url = ready_url.clone();
                async move { PgConnection::connect(&url).await.is_ok() }
            }),
            // Ends sessions at once, and writes everything down.
            stop: Stop { signal: "INT", timeout: Duration::from_secs(20) },
            // After a kill the old sessions hold the shared memory until they have noticed.
            left_over: Some("shared memory"),
        });
        let mut server = Self { process, disk, folder, user, url: url_of("fleetlog"), port };
        server.restart().await?;
        let mut connection = PgConnection::connect(&server_url).await?;
        sqlx::query("CREATE DATABASE fleetlog").execute(&mut connection).await?;
        Ok(server)
    }

    /// `postgres://fleetlog@127.0.0.1:PORT/fleetlog`, or of a secure one with the password and `localhost`; the same after
    /// a restart.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The port; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Shows new connections another certificate, some moments later.
    ///
    /// # Errors
    /// If the disk refuses, or the server isn't running.
    pub fn set_identity(&self, identity: &ServerIdentity) -> Result<()> {
        tls_options(identity, self.folder.path(), self.user)?;
        send_signal(self.pid().context("the server is not running")?, "HUP")
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
fn init(bin: &Path, data: &Path, user: Option<User>, password: Option<&str>) -> Result<()> {
    let program = bin.join("initdb");
    let mut command = Command::new(&program);
    command.arg("-D").arg(data).args([
        "-U",
        "fleetlog",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]);
    // Read before initdb becomes another user; without a password there is nobody to keep out.
    let mut password_file = tempfile::NamedTempFile::new()?;
    match password {
        None => command.arg("--auth=trust"),
        Some(password) => {
            password_file.write_all(password.as_bytes())?;
            if let Some(user) = user {
                chown(password_file.path(), Some(user.uid), Some(user.gid))?;
            }
            command.arg("--auth=scram-sha-256").arg("--pwfile").arg(password_file.path())
        }
    };
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

/// Writes the identity and who may come how; the settings that name them.
fn tls_options(identity: &ServerIdentity, folder: &Path, user: Option<User>) -> Result<Vec<String>> {
    let (certificate, key) = identity.write_to(folder)?;
    let hba = folder.join("pg_hba.conf");
    fs::write(&hba, "hostssl all all all scram-sha-256\n")?;
    for path in [&certificate, &key, &hba] {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        if let Some(user) = user {
            chown(path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(vec![
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
        format!("hba_file={}", hba.display()),
    ])
}

fn arguments(data: &Path, port: u16, options: &[String]) -> Vec<String> {
    let mut args = vec!["-D".to_owned(), data.display().to_string(), "-p".to_owned(), port.to_string()];
    let usual =
        ["listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=32MB", "timezone=UTC"];
    for option in usual.iter().map(|option| (*option).to_owned()).chain(options.iter().cloned()) {
        args.extend(["-c".to_owned(), option]);
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
