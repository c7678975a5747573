//! A private redis-server that a test can kill, restart and throw back in time.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::{RedisSink, RedisSinkSettings};

/// How long a server may take to answer after its start.
const READY_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
    options: Vec<String>,
}

impl Server {
    /// Starts a server that keeps nothing by itself; `options` such as `--maxmemory 2mb` come last.
    pub(super) async fn start(options: &[&str]) -> Self {
        let dir = TempDir::with_prefix("fleetlog-redis-").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let child = Self::spawn(port, &dir, &options);
        let server = Self { child, port, dir, options };
        server.ready().await;
        server
    }

    fn spawn(port: u16, dir: &TempDir, options: &[String]) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(dir.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (Debian package redis-server)")
    }

    async fn ready(&self) {
        let started = Instant::now();
        loop {
            if let Ok(mut connection) = self.try_connect().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return;
            }
            assert!(started.elapsed() < READY_WITHIN, "redis-server does not answer on port {}", self.port);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    pub(super) async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.unwrap()
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(super) fn sink(&self) -> RedisSink {
        RedisSink::open(self.settings()).unwrap()
    }

    pub(super) fn settings(&self) -> RedisSinkSettings {
        RedisSinkSettings {
            timeout_ms: 2000,
            key_prefix: "test/".to_owned(),
            lane_prefix: "p-".to_owned(),
            ..RedisSinkSettings::new(self.url())
        }
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `STOP` makes the server hang, `CONT` lets it go on.
    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(super) async fn start_again(&mut self) {
        self.child = Self::spawn(self.port, &self.dir, &self.options);
        self.ready().await;
    }

    fn dump(&self) -> PathBuf {
        self.dir.path().join("dump.rdb")
    }

    /// Remembers what the server holds now.
    pub(super) async fn snapshot(&self) {
        let _: String = redis::cmd("SAVE").query_async(&mut self.connect().await).await.unwrap();
        std::fs::copy(self.dump(), self.dir.path().join("snapshot.rdb")).unwrap();
    }

    /// Dies, and comes back with what it held at the snapshot.
    pub(super) async fn lose_tail(&mut self) {
        self.kill();
        std::fs::copy(self.dir.path().join("snapshot.rdb"), self.dump()).unwrap();
        self.start_again().await;
    }

    /// Saves, dies, comes back.
    pub(super) async fn restart(&mut self) {
        self.snapshot().await;
        self.lose_tail().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already if the test killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
