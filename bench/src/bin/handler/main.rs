//! One handler of the bench's own, in a process of its own: so that its CPU can be told, and it can be killed.
//! `fleetlog-bench` starts it. It ends when its standard input does, which also happens where the bench is gone.

mod deeds;
mod ports;

use std::{future::Future, io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use fleetlog_bench as _;
use fleetlog_engine::{
    End, EngineConfig, HandlerMetrics, HandlerParts, HandlerRunner, HandlerSettings, KafkaLogs,
    ProjectionRuntime, StartAt,
};
use fleetlog_handler::{CircuitSettings, Handler};
use fleetlog_kafka::KafkaSettings;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    deeds::{Stumbles, Works},
    ports::{NoDeadLetters, Tiers},
};

/// What `fleetlog run` gives a handler.
const MEMORY_BYTES_MAX: usize = 32 << 20;
const BATCH_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, Parser)]
struct Args {
    /// Brokers of the cluster
    #[arg(long)]
    brokers: String,
    /// What the topics' names begin with
    #[arg(long)]
    prefix: String,
    /// The handler's id
    #[arg(long)]
    id: String,
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Works for so long on each event, and ends after the last one: prints seconds from its start until that is committed
    Work {
        /// How many events there are
        #[arg(long)]
        events: u64,
        /// How long it works on each
        #[arg(long)]
        work_ms: u64,
    },
    /// Fails the first call for each event, and writes down every call
    Stumble {
        /// Where to
        #[arg(long)]
        calls: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let stop = end_of_input();
    match &args.deed {
        Deed::Work { events, work_ms } => {
            let work = Works::new(args.id.clone(), Duration::from_millis(*work_ms), *events, stop.clone());
            let (begun, calls) = (std::time::Instant::now(), work.calls());
            run(&args, work, stop).await?;
            let seconds = begun.elapsed().as_secs_f64();
            println!("{}", serde_json::json!({ "seconds": seconds, "calls": calls.get() }));
            Ok(())
        }
        Deed::Stumble { calls } => run(&args, Stumbles::new(args.id.clone(), calls)?, stop).await,
    }
}

/// Cancelled when nobody holds the other end of standard input any more.
fn end_of_input() -> CancellationToken {
    let stop = CancellationToken::new();
    let ended = stop.clone();
    std::thread::spawn(move || {
        // Nothing is ever written into it.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    stop
}

/// Runs a handler until it is stopped; what it did is committed then.
fn run<H: Handler>(args: &Args, handler: H, stop: CancellationToken) -> impl Future<Output = Result<()>> {
    let runner = runner(args, handler);
    async move {
        let (runner, handle) = runner?;
        match handle.spawn(async move { runner.run(stop).await }).await? {
            End::Stopped => Ok(()),
            other => bail!("the handler ended: {other:?}"),
        }
    }
}

fn runner<H: Handler>(
    args: &Args,
    handler: H,
) -> Result<(HandlerRunner<H, fleetlog_codec::Decoder>, tokio::runtime::Handle)> {
    let kafka =
        KafkaSettings { topic_prefix: args.prefix.clone(), ..KafkaSettings::at(args.brokers.clone()) };
    let config = EngineConfig {
        instance: "bench".into(),
        memory_bytes_max: MEMORY_BYTES_MAX,
        batch_bytes_max: BATCH_BYTES_MAX,
        ..EngineConfig::default()
    };
    let runtime = ProjectionRuntime::new(&args.id, config.worker_threads)?;
    let handle = runtime.handle().clone();
    let runner = HandlerRunner::new(HandlerParts {
        handler,
        schemas: fleetlog_codec::Decoder::new(Arc::new(fleetlog_codec::NoSource)),
        waiting: Arc::new(Tiers::connect(&kafka)?),
        dead_letters: Arc::new(NoDeadLetters),
        logs: Arc::new(KafkaLogs::new(&kafka).context("connecting")?),
        kafka,
        topics: vec!["robot".to_owned()],
        settings: HandlerSettings {
            start_at: StartAt::Begin,
            // It is told of nothing but failures until the first of them is due again.
            circuit: CircuitSettings { failures_max: u32::MAX, ..CircuitSettings::default() },
            ..HandlerSettings::default()
        },
        config,
        metrics: HandlerMetrics::register(&Registry::new())?,
        runtime,
    })
    .map_err(|failure| anyhow::anyhow!("{failure}"))?;
    Ok((runner, handle))
}
