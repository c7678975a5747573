//! A private Redis.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    process::{ServerCommand, ServerProcess, free_port},
    stack::setting,
};

/// A Redis of one's own, set up as production has it: append-only file, fsync every second, no eviction.
#[derive(Debug)]
pub struct RedisServer {
    // Before the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    folder: TempDir,
    port: u16,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// If `redis-server` is missing or doesn't come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with lines of `redis.conf` that come after (and win over) the usual ones, such as
    /// `maxmemory-policy allkeys-lru`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleetlog-redis-").tempdir()?;
        let port = free_port()?;
        let config = folder.path().join("redis.conf");
        fs::write(&config, config_text(folder.path(), port, options))?;
        let program = setting("FLEETLOG_STACK_REDIS_SERVER").unwrap_or_else(|| "redis-server".to_owned());
        let mut server = Self {
            process: ServerProcess::new(ServerCommand {
                program: program.into(),
                args: vec![config.display().to_string()],
                user: None,
                log: folder.path().join("redis.log"),
            }),
            folder,
            port,
        };
        server.restart().await?;
        Ok(server)
    }

    /// `redis://127.0.0.1:PORT/0`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// The folder with the append-only files, for a test that cuts their tail while the server is down.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `kill -9`: what was not yet written to the append-only file is lost, as in a crash.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// If it doesn't end within ten seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop("TERM", Duration::from_secs(10)).await
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`], on the same port and files; returns once it answers.
    ///
    /// # Errors
    /// If it is running, or doesn't come up.
    pub async fn restart(&mut self) -> Result<()> {
        let client = redis::Client::open(self.url()).context("own Redis URL")?;
        self.process
            .start(|| async {
                let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                    return false;
                };
                redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            })
            .await
    }

    /// Freezes it: connections stay open, nothing is answered.
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
}

fn config_text(folder: &Path, port: u16, options: &[&str]) -> String {
    format!(
        "bind 127.0.0.1\nport {port}\ndir {}\ndaemonize no\nappendonly yes\nappendfsync everysec\nsave \"\"\n\
         maxmemory-policy noeviction\n{}\n",
        folder.display(),
        options.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(server: &RedisServer) -> Option<String> {
        let mut connection =
            redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        redis::cmd("GET").arg("k").query_async(&mut connection).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_written_survives_a_stop_and_a_pause() {
        let mut server = RedisServer::start().await.unwrap();
        let mut connection =
            redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let _: () = redis::cmd("SET").arg("k").arg("v").query_async(&mut connection).await.unwrap();
        server.stop().await.unwrap();
        assert!(redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.is_err());
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
}
