//! Calls `recount.py`: the checker in another language, which shares no code with what it checks.

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fleetlog_testkit::{python, workspace_root};
use fleetlog_tests::World;
use tempfile::NamedTempFile;

use crate::{load::Sent, outcome::Recount};

/// How long a recount may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What the recount is told.
#[derive(Clone)]
pub(crate) struct Expected {
    /// What the simulated fleet sent.
    pub(crate) sent: Sent,
    /// Poison and repeats that were acknowledged.
    pub(crate) poisons: u64,
    /// Projections that are left out, with the topics that only they read.
    pub(crate) without: &'static [&'static str],
    /// Projectors rejected what they should take, and that was redriven.
    pub(crate) redriven: bool,
    /// Hot state lost its tail, and ledgers with it: letters may tell more than these.
    pub(crate) tails_lost: bool,
}

/// Reads the log, both stores and the dead letters, and counts.
pub(crate) async fn recount(world: &World, expected: &Expected) -> Result<Recount> {
    let script: PathBuf = workspace_root().join("tests/chaos/recount.py");
    let mut sent = NamedTempFile::new()?;
    for event_id in &expected.sent.events {
        writeln!(sent, "{}", event_id.0)?;
    }
    sent.flush()?;
    let mut command = tokio::process::Command::new(python());
    command
        .arg(script)
        .args(["--brokers", &world.stack.brokers, "--prefix", &world.prefix])
        .args(["--redis", &world.redis_url, "--postgres", world.database.url()])
        .args(["--acknowledged", &expected.sent.acknowledged.to_string()])
        .arg("--sent")
        .arg(sent.path())
        .args(["--poisons", &expected.poisons.to_string()])
        .args(["--without", &expected.without.join(",")])
        .args(expected.redriven.then_some("--redriven"))
        .args(expected.tails_lost.then_some("--tails-lost"))
        .kill_on_drop(true);
    let output =
        tokio::time::timeout(LIMIT, command.output()).await.context("the recount took too long")??;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "recount.py ended with {}: {stdout}{stderr}", output.status);
    serde_json::from_str(&stdout).with_context(|| format!("recount.py said {stdout}{stderr}"))
}
