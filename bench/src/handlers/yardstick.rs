//! Confluent's Parallel Consumer, where it can be fetched and run: `bench/parallel-consumer/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Fleet;
use crate::{
    report::Sample,
    stack::{Stack, said},
};

const SOURCE: &str = "bench/parallel-consumer/Consume.java";
const POM: &str = "bench/parallel-consumer/pom.xml";
/// Beside the servers of the local stack; `make clean` removes it.
const JARS: &str = ".stack/parallel-consumer";
/// What it may have of threads: as many as our windows of all six partitions together, as our window of one, what its documentation
/// takes for its examples, and its default.
const THREADS: [u32; 4] = [6 * 256, 256, 100, 16];
/// Events of a trial for each of these.
const TRIAL_EVENTS: u64 = 50_000;

/// Its jars.
pub(super) struct Yardstick {
    jars: PathBuf,
}

impl Yardstick {
    /// Fetches it, once per `pom.xml`. None where that is not possible: then its rows are left out.
    pub(super) fn fetch() -> Option<Self> {
        let fetched = fetch(Path::new(JARS));
        if let Err(error) = &fetched {
            println!("Parallel Consumer is left out: {error:#}");
        }
        fetched.ok().map(|()| Self { jars: PathBuf::from(JARS) })
    }

    /// How many threads it is fastest with.
    pub(super) fn fastest(&self, stack: &Stack, fleet: &Fleet, work_ms: u64) -> Result<u32> {
        let trial = Fleet { prefix: fleet.prefix.clone(), events: TRIAL_EVENTS.min(fleet.events), ..*fleet };
        let mut best = (0.0, THREADS[0]);
        for threads in THREADS {
            // So many cannot sleep often enough to be the fastest.
            if work_ms > 0 && f64::from(threads) * 1_000.0 / (work_ms as f64) < best.0 {
                continue;
            }
            let sample = self.once(stack, &trial, &format!("trial{threads}"), work_ms, threads)?;
            println!(
                "Parallel Consumer, {work_ms} ms of work, {threads} threads: {:.0} events/s",
                sample.value
            );
            if sample.value > best.0 {
                best = (sample.value, threads);
            }
        }
        Ok(best.1)
    }

    /// One round: the second of two in one JVM.
    pub(super) fn once(
        &self,
        stack: &Stack,
        fleet: &Fleet,
        label: &str,
        work_ms: u64,
        threads: u32,
    ) -> Result<Sample> {
        let topic = stack.kafka(&fleet.prefix).topic("robot");
        let group = format!("{}parallel-consumer-{label}", fleet.prefix);
        let mut command = Command::new("java");
        command.arg("-cp").arg(self.jars.join("*")).arg(SOURCE).args([stack.brokers(), &topic, &group]);
        command.args([fleet.events.to_string(), work_ms.to_string(), threads.to_string()]);
        let told: Value = serde_json::from_str(&said(&mut command)?)?;
        let seconds = told["seconds"].as_f64().context("seconds")?;
        let mut sample = Sample { value: fleet.events as f64 / seconds, ..Sample::default() };
        let cpu_s = told["cpu_seconds"].as_f64().context("CPU seconds")?;
        sample.spent.cpu_s.insert("java".to_owned(), cpu_s);
        Ok(sample)
    }
}

/// The copy of `pom.xml` beside the jars says for which they were fetched.
fn fetch(jars: &Path) -> Result<()> {
    let (wanted, copy) = (fs::read(POM).context(POM)?, jars.join("pom.xml"));
    if fs::read(&copy).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    if jars.exists() {
        fs::remove_dir_all(jars)?;
    }
    fs::create_dir_all(jars)?;
    let folder = format!("-DoutputDirectory={}", jars.canonicalize()?.display());
    said(
        Command::new("mvn")
            .args(["-q", "-B", "-f", POM, "dependency:copy-dependencies"])
            .args([folder.as_str(), "-DincludeScope=runtime"]),
    )?;
    fs::write(copy, wanted)?;
    Ok(())
}
