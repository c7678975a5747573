//! A fleet of a test's own, and the binary from outside: what a person types, and what comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fleetlog_kafka::{KafkaSettings, OwnedRecord};
use fleetlog_testkit::{
    Database, Fleetlog, KafkaServer, Output, RedisServer, Running, Stack, fresh_database, records,
    redis_connection, unique,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a command may take that has nothing to wait for, and how long something is waited for: only what hangs should
/// meet it, however few processors tests share.
pub const LIMIT: Duration = Duration::from_secs(300);
/// How often a store is asked that has no way to tell.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// The projections with hot state and the topic each reads.
const HOT: [(&str, &str); 3] =
    [("unit-consensus", "telemetry"), ("unit-status", "robot"), ("task-state", "task")];
const PARTITIONS: i32 = 6;

/// A fleet of this test's own: topic and key prefix, database, state folder.
#[derive(Debug)]
pub struct World {
    /// The servers.
    pub stack: Stack,
    /// Before every topic, group and Redis key.
    pub prefix: String,
    /// Where history goes.
    pub database: Database,
    /// The binary with this fleet's settings.
    pub fleetlog: Fleetlog,
    /// Where hot state goes.
    pub redis_url: String,
    _state_dir: tempfile::TempDir,
}

impl World {
    /// With nothing made yet: neither topics nor tables.
    ///
    /// # Panics
    /// As all of this: when something that a test needs is not there.
    pub async fn bare(label: &str) -> Self {
        Self::bare_on(Stack::from_env(), label).await
    }

    /// The same on other servers than the shared ones.
    pub async fn bare_on(stack: Stack, label: &str) -> Self {
        let (prefix, database) = (unique(label), fresh_database(&stack).await.unwrap());
        let state_dir = tempfile::tempdir().unwrap();
        let fleetlog = Fleetlog::new(&stack, &prefix)
            .env("FLEETLOG_POSTGRES__URL", database.url())
            .env("FLEETLOG_RUN__STATE_DIR", &state_dir.path().display().to_string());
        let redis_url = stack.redis_url.clone();
        Self { stack, prefix, database, fleetlog, redis_url, _state_dir: state_dir }
    }

    /// With topics and tables.
    pub async fn new(label: &str) -> Self {
        Self::on(Stack::from_env(), label).await
    }

    /// The same on other servers than the shared ones.
    pub async fn on(stack: Stack, label: &str) -> Self {
        Self::bare_on(stack, label).await.made().await
    }

    /// The same on a broker of one's own.
    pub async fn on_kafka(kafka: &KafkaServer, label: &str) -> Self {
        let mut world = Self::bare(label).await;
        world.stack.brokers = kafka.brokers();
        world.fleetlog = world
            .fleetlog
            .env("FLEETLOG_KAFKA__BROKERS", &kafka.brokers())
            .env("FLEETLOG_KAFKA__REPLICATION", "1");
        world.made().await
    }

    /// The same with settings that all commands and processes have.
    pub async fn with(stack: Stack, label: &str, settings: &[(String, String)]) -> Self {
        let mut world = Self::bare_on(stack, label).await;
        for (name, value) in settings {
            world.fleetlog = world.fleetlog.env(name, value);
        }
        world.made().await
    }

    async fn made(self) -> Self {
        self.ok(&["topics", "apply"]).await;
        self.ok(&["migrate"]).await;
        self
    }

    /// The same, with hot state on a Redis of one's own.
    #[must_use]
    pub fn on_redis(mut self, redis: &RedisServer) -> Self {
        self.redis_url = redis.url();
        self.fleetlog = self.fleetlog.env("FLEETLOG_REDIS__URL", &self.redis_url);
        self
    }

    /// All that is visible on a topic (its physical name), by partition and offset.
    pub async fn records(&self, topic: &str) -> Vec<OwnedRecord> {
        records(&self.kafka(), topic).await.unwrap()
    }

    /// Client settings for this fleet's topics.
    #[must_use]
    pub fn kafka(&self) -> KafkaSettings {
        self.stack.kafka(&self.prefix)
    }

    /// Runs a command that has to end with 0; its stdout.
    pub async fn ok(&self, args: &[&str]) -> String {
        self.fleetlog
            .run(args, LIMIT)
            .await
            .unwrap()
            .success()
            .unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    /// The same with `--format json`.
    pub async fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--format", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Runs a command that has to end with this code; what it said.
    pub async fn fails(&self, code: i32, args: &[&str]) -> Output {
        let output = self.fleetlog.run(args, LIMIT).await.unwrap();
        assert_eq!(output.code(), Some(code), "{args:?}: {}{}", output.stdout, output.stderr);
        output
    }

    /// Events of a simulated fleet, at full speed; all are acknowledged. What was reported.
    pub async fn simulate(&self, events: u64, seed: u64) -> Value {
        let (events, seed) = (events.to_string(), seed.to_string());
        let report = self
            .json(&["simulate", "--units", "5", "--rate", "max", "--events", &events, "--seed", &seed])
            .await;
        assert_eq!(report["acknowledged"].to_string(), events);
        report
    }

    /// Waits until everything is taken, and has it recounted: no difference, something compared. The reports by
    /// projection.
    pub async fn verified(&self) -> BTreeMap<String, Value> {
        self.ok(&["status", "--wait", "240"]).await;
        let output = self.fleetlog.run(&["verify", "--format", "json"], LIMIT).await.unwrap();
        assert_eq!(output.code(), Some(0), "verify: {}{}", output.stdout, output.stderr);
        let reports: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(reports.len(), 8);
        for report in &reports {
            assert_eq!(report["differences"].as_array().map(Vec::len), Some(0), "{report:#}");
        }
        reports
            .into_iter()
            .map(|report| (report["projection"].as_str().unwrap().to_owned(), report))
            .collect()
    }

    /// A connection to this fleet's database.
    pub async fn postgres(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.unwrap()
    }

    /// Rows of history, by table; no place of the log is there twice.
    pub async fn rows(&self) -> BTreeMap<&'static str, i64> {
        let mut postgres = self.postgres().await;
        let mut rows = BTreeMap::new();
        for table in ["telemetry", "unit_event", "task_event"] {
            let statement =
                format!("SELECT count(*), count(DISTINCT (log_partition, log_offset)) FROM {table}");
            let row = sqlx::query(&statement).fetch_one(&mut postgres).await.unwrap();
            let (all, places): (i64, i64) = (row.get(0), row.get(1));
            assert_eq!(all, places, "{table} holds a place of the log twice");
            rows.insert(table, all);
        }
        rows
    }

    /// The owners' nonces that stand in the links of all lanes: in Redis, in PostgreSQL. A process that has written
    /// leaves one that was not there before.
    pub async fn nonces(&self) -> Option<[BTreeSet<String>; 2]> {
        let nonce = |link: &str| link.split('.').next().unwrap_or_default().to_owned();
        let mut redis = redis_connection(&self.redis_url).await.ok()?;
        let mut pipe = redis::pipe();
        for (projection, stem) in HOT {
            for partition in 0..PARTITIONS {
                let prefix = &self.prefix;
                pipe.hget(
                    format!("{prefix}fleetlog:{prefix}{projection}@1:{prefix}{stem}:{partition}"),
                    "link",
                );
            }
        }
        let links: Vec<Option<String>> = pipe.query_async(&mut redis).await.ok()?;
        let hot = links.iter().flatten().map(|link| nonce(link)).collect();
        let rows = sqlx::query("SELECT link FROM fleetlog_progress")
            .fetch_all(&mut self.postgres().await)
            .await
            .ok()?;
        Some([hot, rows.iter().map(|row| nonce(row.get::<&str, _>(0))).collect()])
    }

    /// Waits until a process that has not written before has written to both stores; how long each took since
    /// `begun`.
    pub async fn first_writes(&self, before: &[BTreeSet<String>; 2], begun: Instant) -> [Duration; 2] {
        let mut took = [None, None];
        until("a new owner's first write", async || {
            if let Some(now) = self.nonces().await {
                for store in 0..2 {
                    if took[store].is_none() && !now[store].is_subset(&before[store]) {
                        took[store] = Some(begun.elapsed());
                    }
                }
            }
            took.iter().all(Option::is_some)
        })
        .await;
        took.map(Option::unwrap)
    }
}

/// Asks again until it is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for {what}");
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// Where `run` serves its probes.
pub async fn address_of(running: &mut Running) -> String {
    let line = running.line_with("/metrics", LIMIT).await.unwrap();
    let (_, rest) = line.split_once("http://").unwrap();
    rest.split('/').next().unwrap().to_owned()
}

/// The status code and body of a GET.
pub async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}
