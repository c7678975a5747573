//! The local stack, and the program that is measured.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use fleetlog_kafka::KafkaSettings;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{cpu::Meter, report::Sample};

/// Between two looks at a process' memory.
const SAMPLED_EVERY: Duration = Duration::from_millis(20);

/// Where things are.
pub(crate) struct Stack {
    places: Places,
    /// Of this run: begins every name.
    pub(crate) name: String,
}

/// What `bench/run.sh` says, by variables.
#[derive(Debug, clap::Args)]
pub(crate) struct Places {
    /// The program that is measured
    #[arg(long, env = "FLEETLOG_BENCH_BINARY")]
    binary: PathBuf,
    /// psql
    #[arg(long, env = "FLEETLOG_BENCH_PSQL")]
    psql: PathBuf,
    /// Kafka's brokers
    #[arg(long, env = "FLEETLOG_KAFKA__BROKERS")]
    brokers: String,
    /// Redis
    #[arg(long, env = "FLEETLOG_REDIS__URL")]
    redis: String,
    /// A database of the PostgreSQL server, whose user may make others
    #[arg(long, env = "FLEETLOG_POSTGRES__URL")]
    postgres: String,
}

impl Stack {
    pub(crate) fn at(places: Places) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self { places, name: format!("bench{}", since.as_secs()) })
    }

    /// Settings of clients for topics with a prefix.
    pub(crate) fn kafka(&self, prefix: &str) -> KafkaSettings {
        KafkaSettings { topic_prefix: prefix.to_owned(), ..KafkaSettings::at(&self.places.brokers) }
    }

    /// For clients that are not fleetlog's.
    pub(crate) fn brokers(&self) -> &str {
        &self.places.brokers
    }

    /// For files of this run.
    pub(crate) fn folder(&self) -> PathBuf {
        PathBuf::from("/tmp").join(&self.name)
    }

    /// The program, with topics, keys and a database of that name.
    pub(crate) fn fleetlog(&self, topics: &str, stores: &str) -> Command {
        let mut command = Command::new(&self.places.binary);
        command
            .env("FLEETLOG_KAFKA__TOPIC_PREFIX", topics)
            .env("FLEETLOG_REDIS__KEY_PREFIX", format!("{stores}:"))
            .env("FLEETLOG_POSTGRES__URL", self.database_url(stores))
            .env("FLEETLOG_RUN__STATE_DIR", self.folder())
            .env("FLEETLOG_LOG__FILTER", "warn")
            .env_remove("FLEETLOG_BENCH_BINARY")
            .env_remove("FLEETLOG_BENCH_PSQL");
        command
    }

    pub(crate) fn redis_url(&self) -> &str {
        &self.places.redis
    }

    pub(crate) fn database_url(&self, name: &str) -> String {
        let postgres = &self.places.postgres;
        let (server, _) = postgres.rsplit_once('/').unwrap_or((postgres, ""));
        format!("{server}/{name}")
    }

    /// Statements or commands of psql, on the database of that name, or on the stack's.
    pub(crate) fn psql(&self, database: Option<&str>, commands: &[&str]) -> Result<String> {
        let url = database.map_or_else(|| self.places.postgres.clone(), |name| self.database_url(name));
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        said(Command::new(&self.places.psql).args(["-qXAt", "-v", "ON_ERROR_STOP=1", &url]).args(commands))
    }

    /// A fresh database with fleetlog's tables.
    pub(crate) fn database(&self, name: &str) -> Result<()> {
        self.psql(None, &[&format!("CREATE DATABASE {name}")])?;
        said(self.fleetlog("", name).arg("migrate"))?;
        Ok(())
    }

    pub(crate) fn drop_database(&self, name: &str) -> Result<()> {
        self.psql(None, &[&format!("DROP DATABASE {name} WITH (FORCE)")]).map(drop)
    }

    /// Removes the keys that begin with a name.
    pub(crate) fn drop_keys(&self, name: &str) -> Result<()> {
        let mut redis = redis::Client::open(self.redis_url())?.get_connection()?;
        let keys: Vec<String> =
            redis::Commands::scan_match(&mut redis, format!("{name}:*"))?.collect::<Result<_, _>>()?;
        for some in keys.chunks(1000) {
            redis::cmd("UNLINK").arg(some).exec(&mut redis)?;
        }
        Ok(())
    }
}

/// Standard output of a command that has to end well.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `run --once` of these projections did (none: all): events a second over all of them, and its report.
pub(crate) fn once(runtime: &Runtime, mut command: Command, projections: &[&str]) -> Result<(Sample, Value)> {
    command.args(["run", "--once", "--format", "json"]);
    if !projections.is_empty() {
        command.args(["--projections", &projections.join(",")]);
    }
    let (begun, meter) = (Instant::now(), Meter::start());
    let (output, peak_rss_mb) = runtime.block_on(watched(command))?;
    let seconds = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("run --once ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let events: u64 = report.as_array().into_iter().flatten().filter_map(|row| row["events"].as_u64()).sum();
    let mut spent = meter.stop_with_child("fleetlog");
    spent.peak_rss_mb = Some(peak_rss_mb);
    Ok((Sample { value: events as f64 / seconds, spent }, report))
}

/// Waits for a process; what it said, and its peak memory in MB.
async fn watched(command: Command) -> Result<(Output, f64)> {
    let child =
        tokio::process::Command::from(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = format!("/proc/{}/status", child.id().unwrap_or_default());
    let output = child.wait_with_output();
    tokio::pin!(output);
    let mut peak_kib = 0.0_f64;
    loop {
        tokio::select! {
            output = &mut output => return Ok((output?, peak_kib * 1024.0 / 1e6)),
            () = tokio::time::sleep(SAMPLED_EVERY) => {}
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let high = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(high.unwrap_or(0.0));
    }
}
