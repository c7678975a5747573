//! A private Redis.

use std::{
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    ServerIdentity,
    process::{Ready, ServerCommand, ServerProcess, Stop, free_port},
    stack::{percent_encoded, setting},
};

/// How long a replica may take until it follows.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks whether it does.
const FOLLOW_POLL: Duration = Duration::from_millis(20);
/// What a running server keeps beside its data.
const NOT_DATA: [&str; 4] = ["redis.conf", "redis.log", "certificate.pem", "key.pem"];

/// A Redis of one's own, set up as production has it: append-only file, fsync every second, no eviction.
///
/// It is its process: killed, stopped, paused and restarted as [`ServerProcess`] says. A kill loses nothing that a client
/// saw acknowledged, since what was written to the file is the system's; see [`Self::forget`] for the opposite.
#[derive(Debug)]
pub struct RedisServer {
    // Before the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    folder: TempDir,
    port: u16,
    url: String,
}

/// What a Redis held at a moment, as files.
#[derive(Debug)]
pub struct RedisSnapshot(TempDir);

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// If `redis-server` is missing or doesn't come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// One that follows the server at `host` and `port` (a primary, or a proxy before it), and has what it has.
    ///
    /// # Errors
    /// As [`Self::start`], or if it doesn't follow within half a minute.
    pub async fn start_replica_of(host: &str, port: u16) -> Result<Self> {
        let replica = Self::start_with(&[
            &format!("replicaof {host} {port}"),
            // A primary that falls silent is left alone at once, and asked again at once.
            "repl-timeout 2",
            "repl-ping-replica-period 1",
            "repl-diskless-sync-delay 0",
        ])
        .await?;
        let begun = Instant::now();
        // Until what it took over is in its own append-only file: killed before, it would come back with nothing.
        while replica.info("replication", "master_link_status").await? != "up"
            || replica.info("persistence", "aof_rewrite_in_progress").await? != "0"
            || replica.info("persistence", "aof_rewrite_scheduled").await? != "0"
        {
            if begun.elapsed() > FOLLOW_TIMEOUT {
                bail!("the replica does not follow {host}:{port} within {FOLLOW_TIMEOUT:?}");
            }
            sleep(FOLLOW_POLL).await;
        }
        Ok(replica)
    }

    /// The same with lines of `redis.conf` that come after (and win over) the usual ones, such as
    /// `maxmemory-policy allkeys-lru`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let (folder, port) = (new_folder()?, free_port()?);
        Self::start_at(folder, port, url_of(port), &url_of(port), options).await
    }

    /// One that speaks TLS alone and lets in nobody but this user of an ACL.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_secure(
        identity: &ServerIdentity,
        user: &str,
        password: &str,
        rights: &str,
    ) -> Result<Self> {
        let (folder, port) = (new_folder()?, free_port()?);
        let (certificate, key) = identity.write_to(folder.path())?;
        let options = [
            "port 0".to_owned(),
            format!("tls-port {port}"),
            format!("tls-cert-file {}", certificate.display()),
            format!("tls-key-file {}", key.display()),
            "tls-auth-clients no".to_owned(),
            "user default off".to_owned(),
            format!("user {user} on >{password} {rights}"),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        // Whether it answers is asked without a look at its certificate, which may be a bad one on purpose.
        let own = format!("rediss://{user}:{}@localhost:{port}/0#insecure", percent_encoded(password));
        Self::start_at(folder, port, format!("rediss://localhost:{port}/0"), &own, &options).await
    }

    async fn start_at(
        folder: TempDir,
        port: u16,
        url: String,
        own_url: &str,
        options: &[&str],
    ) -> Result<Self> {
        let config = folder.path().join("redis.conf");
        fs::write(&config, config_text(folder.path(), port, options))?;
        let program = setting("FLEETLOG_STACK_REDIS_SERVER").unwrap_or_else(|| "redis-server".to_owned());
        let client = redis::Client::open(own_url).context("own Redis URL")?;
        let process = ServerProcess::new(ServerCommand {
            program: program.into(),
            args: vec![config.display().to_string()],
            user: None,
            log: folder.path().join("redis.log"),
            ready: Ready::when(move || answers(client.clone())),
            stop: Stop { signal: "TERM", timeout: Duration::from_secs(10) },
            left_over: None,
        });
        let mut server = Self { process, folder, port, url };
        server.restart().await?;
        Ok(server)
    }

    /// `redis://127.0.0.1:PORT/0`, or `rediss://localhost:PORT/0` of a secure one; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The port; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the append-only files, for a test that cuts their tail while the server is down.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection to it.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        Ok(redis_connection(&self.url()).await?)
    }

    /// What it holds now, to come back to with [`Self::restore`].
    ///
    /// # Errors
    /// If its files cannot be copied.
    pub fn snapshot(&self) -> Result<RedisSnapshot> {
        // Every command was written to the append-only file before its answer went out. One that is being written just
        // now may be cut off in the copy; loading stops there, as after a power cut.
        let folder = tempfile::Builder::new().prefix("fleetlog-redis-snapshot-").tempdir()?;
        copy_data(self.folder(), folder.path())?;
        Ok(RedisSnapshot(folder))
    }

    /// `kill -9`, and a start with what it held then: what an operator does who restores a backup.
    ///
    /// # Errors
    /// If the files cannot be put back, or it doesn't come up.
    pub async fn restore(&mut self, snapshot: &RedisSnapshot) -> Result<()> {
        self.kill();
        self.remove_data()?;
        copy_data(snapshot.0.path(), self.folder())?;
        self.restart().await
    }

    /// `kill -9`, and a start with nothing: what is left of a Redis without persistence.
    ///
    /// # Errors
    /// If the files cannot be removed, or it doesn't come up.
    pub async fn forget(&mut self) -> Result<()> {
        self.kill();
        self.remove_data()?;
        self.restart().await
    }

    fn remove_data(&self) -> Result<()> {
        for path in data_files(self.folder())? {
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    /// Makes a replica a primary with what it has, which it stays over restarts.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn promote(&self) -> Result<()> {
        let mut promote = redis::cmd("REPLICAOF");
        promote.arg("NO").arg("ONE");
        let mut connection = self.connect().await?;
        let _: String = promote.query_async(&mut connection).await?;
        // As Sentinel does: otherwise a restart would make it a replica again, of a primary that is gone.
        let _: String = redis::cmd("CONFIG").arg("REWRITE").query_async(&mut connection).await?;
        Ok(())
    }

    /// A line of a section of `INFO`, such as `master_repl_offset` of `replication`; empty if there is no such line.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn info(&self, section: &str, line: &str) -> Result<String> {
        let info: String = redis::cmd("INFO").arg(section).query_async(&mut self.connect().await?).await?;
        let found = info.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        Ok(found.unwrap_or_default().trim().to_owned())
    }
}

impl Deref for RedisServer {
    type Target = ServerProcess;

    fn deref(&self) -> &ServerProcess {
        &self.process
    }
}

impl DerefMut for RedisServer {
    fn deref_mut(&mut self) -> &mut ServerProcess {
        &mut self.process
    }
}

fn new_folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("fleetlog-redis-").tempdir()?)
}

/// A connection to any Redis that has the patience which a busy machine needs: by default it would give up after half a second.
///
/// # Errors
/// If it doesn't answer.
pub async fn redis_connection(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let patient = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patient).await
}

fn url_of(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

async fn answers(client: redis::Client) -> bool {
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
    redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
}

fn config_text(folder: &Path, port: u16, options: &[&str]) -> String {
    // No rewriting of the append-only file, so that its files can be copied while they grow.
    format!(
        "bind 127.0.0.1\nport {port}\ndir {}\ndaemonize no\nappendonly yes\nappendfsync everysec\nsave \"\"\n\
         auto-aof-rewrite-percentage 0\nmaxmemory-policy noeviction\n{}\n",
        folder.display(),
        options.join("\n")
    )
}

/// The files and folders that make up what a server holds.
fn data_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !NOT_DATA.iter().any(|not| name == *not) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn copy_data(from: &Path, to: &Path) -> Result<()> {
    for path in data_files(from)? {
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            fs::create_dir(&copy)?;
            copy_data(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, FaultProxy, Way};

    async fn get(server: &RedisServer) -> Option<String> {
        redis::cmd("GET").arg("k").query_async(&mut server.connect().await.unwrap()).await.unwrap()
    }

    async fn set(server: &RedisServer, value: &str) {
        let _: () = redis::cmd("SET")
            .arg("k")
            .arg(value)
            .query_async(&mut server.connect().await.unwrap())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_written_survives_a_stop_and_a_pause() {
        let mut server = RedisServer::start().await.unwrap();
        set(&server, "v").await;
        server.stop().await.unwrap();
        assert!(server.connect().await.is_err());
        server.restart().await.unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("v"));

        server.pause().unwrap();
        let asked = tokio::time::timeout(Duration::from_millis(200), get(&server)).await;
        assert!(asked.is_err(), "a paused server answered");
        server.resume().unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("v"));
        server.kill();
        assert!(server.pid().is_none());
    }

    #[tokio::test]
    async fn a_kill_loses_nothing_or_everything() {
        let mut server = RedisServer::start().await.unwrap();
        set(&server, "v").await;
        server.kill();
        server.restart().await.unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("v"));
        server.forget().await.unwrap();
        assert_eq!(get(&server).await, None);
    }

    #[tokio::test]
    async fn a_snapshot_is_come_back_to() {
        let mut server = RedisServer::start().await.unwrap();
        set(&server, "old").await;
        let snapshot = server.snapshot().unwrap();
        set(&server, "new").await;
        server.restore(&snapshot).await.unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("old"));
        set(&server, "newer").await;
        server.kill();
        server.restart().await.unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("newer"));
    }

    #[tokio::test]
    async fn a_replica_that_was_cut_off_is_promoted_without_the_tail() {
        let mut primary = RedisServer::start().await.unwrap();
        set(&primary, "early").await;
        let way = FaultProxy::start(format!("127.0.0.1:{}", primary.port())).await.unwrap();
        let mut replica = RedisServer::start_replica_of("127.0.0.1", way.port()).await.unwrap();
        assert_eq!(get(&replica).await.as_deref(), Some("early"));
        way.set(Way::Lose(Direction::Both)).await;
        set(&primary, "late").await;
        primary.kill();
        replica.promote().await.unwrap();
        assert_eq!(get(&replica).await.as_deref(), Some("early"));
        set(&replica, "other").await;
        assert_eq!(get(&replica).await.as_deref(), Some("other"));
        replica.kill();
        replica.restart().await.unwrap();
        set(&replica, "after its restart").await;
        assert_eq!(get(&replica).await.as_deref(), Some("after its restart"));
    }
}
