//! Handlers: how many events a second one gets through, and how late its retries are.
//!
//! The handler is one of the bench's own, in a process of its own (`bin/handler/`), with the engine and the topics of
//! `fleetlog run`: what is measured is what waits and what counts, without an endpoint.

mod lateness;
mod throughput;
mod yardstick;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fleetlog_bench::telemetry::{SITE, unit_uid};
use fleetlog_event::{EventId, EventMeta, TimestampMs, robot::Connected};
use fleetlog_producer::EventProducer;

use crate::{
    Bench,
    load::now_ms,
    stack::{Stack, said},
};

/// How long a measurement may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// All of it; lateness in one round, or with `is_full` in as many as everything else.
pub(crate) fn measure(bench: &mut Bench, is_full: bool) -> Result<()> {
    throughput::measure(bench)?;
    let rounds = if is_full { bench.rounds } else { 1 };
    lateness::measure(bench, rounds)
}

/// Events of topic `robot` of so many units, on topics under a prefix of their own.
struct Fleet {
    prefix: String,
    events: u64,
    units: u64,
}

impl Fleet {
    fn new(stack: &Stack, label: &str, events: u64, units: u64) -> Self {
        Self { prefix: format!("{}-{label}-", stack.name), events, units }
    }

    /// Makes the topics, with those on which the events of these handlers wait: to `topics apply` each is a webhook.
    fn topics(&self, stack: &Stack, handlers: &[String]) -> Result<()> {
        let mut command = stack.fleetlog(&self.prefix, "none");
        for handler in handlers {
            let section = format!("FLEETLOG_WEBHOOKS__{}__", handler.to_uppercase());
            let settings =
                [("URL", "http://127.0.0.1:9/"), ("ALLOW_PRIVATE", "true"), ("ALLOW_UNSIGNED", "true")];
            command.envs(settings.map(|(name, value)| (format!("{section}{name}"), value)));
        }
        said(command.args(["topics", "apply"])).map(drop)
    }

    /// The `n`-th event: the units take turns.
    fn event(&self, n: u64) -> Connected {
        let meta = EventMeta {
            event_id: EventId::now_v7(),
            occurred_at: TimestampMs(now_ms()),
            recorded_at: TimestampMs(0),
            site_uid: SITE.into(),
            unit_uid: Some(unit_uid(n % self.units)),
            sequence: None,
            sequence_scope: None,
            source: "bench/1".into(),
            correlation_id: None,
            causation_id: None,
        };
        Connected { meta, protocol: Some("vda5050/2.1".into()) }
    }

    /// Sends them all: one after the other, or each when it is due at that rate a second.
    async fn send(&self, stack: &Stack, rate: Option<u64>) -> Result<()> {
        let producer = EventProducer::connect(&stack.kafka(&self.prefix))?;
        let begun = Instant::now();
        for n in 0..self.events {
            let due = rate.map(|rate| begun + Duration::from_secs_f64(n as f64 / rate as f64));
            if let Some(due) = due.filter(|due| *due > Instant::now()) {
                tokio::time::sleep_until(due.into()).await;
            }
            // Outcomes are in the report.
            drop(producer.send(self.event(n)).await?);
        }
        let report = producer.close(PATIENCE).await;
        ensure!(report.delivered == self.events, "{} of {} were acknowledged", report.delivered, self.events);
        Ok(())
    }

    /// The process of a handler of that name (of [`topics`](Self::topics)); what it is to do is still to be said.
    fn handler(&self, stack: &Stack, name: &str) -> Result<Command> {
        let mut command = Command::new(handler_program()?);
        command.args(["--brokers", stack.brokers(), "--prefix", &self.prefix]);
        command.args(["--id", &format!("webhook-{name}")]);
        Ok(command)
    }
}

/// It is built with the bench, and lies beside it.
fn handler_program() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("fleetlog-bench-handler");
    ensure!(program.exists(), "{} is missing: cargo build --release -p fleetlog-bench", program.display());
    Ok(program)
}

/// A handler's process, which ends when this is dropped: its standard input ends.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        Ok(Self(command.stdin(Stdio::piped()).spawn()?))
    }

    fn is_running(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// As `kill -9` does.
    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        Ok(self.0.wait().map(drop)?)
    }

    /// Lets it end what is under way.
    fn stop(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        ensure!(status.success(), "the handler ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
