//! `fleetlog run`: the projectors, and the handlers beside them.

mod choice;
mod probes;
mod report;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use fleetlog_codec::Decoder;
use fleetlog_engine::{
    End, EngineConfig, HandlerMetrics, HandlerParts, HandlerRunner, Inbox, KafkaInbox, KafkaLogs, Outcome,
    ProjectionRunner, ProjectionRuntime, RunMode, RunnerParts,
    metrics::EngineMetrics,
    ports::{DeadLetters, WaitingTopics},
};
use fleetlog_event::catalogue::Catalogue;
use fleetlog_handler::Handler;
use fleetlog_kafka::KafkaSettings;
use fleetlog_presence::metrics::PresenceMetrics;
use fleetlog_producer::ProducerMetrics;
use fleetlog_projection::{Fault, Fold, Map, Projection, RecordMap, Sink, SinkError};
use fleetlog_projections::{Described, SinkKind, for_each_projection};
use fleetlog_sink_timescale::Database;
use fleetlog_webhook::Webhook;
use futures_util::{FutureExt as _, future::BoxFuture};
use sd_notify::NotifyState;
use tokio::{runtime, task::JoinSet};
use tokio_util::sync::CancellationToken;

use choice::{Chosen, chosen, handler_settings, wait_for_kafka};
use probes::{Handle, Running};
use report::report;

use crate::{
    commands::migrate,
    config::Config,
    engine_parts::{DeadLetterTopics, RetryTopics},
    exit::{Code, Failure},
    figures::Figures,
    halts::OpsHalts,
    handlers, http,
    instance::Instance,
    lanes,
    memory::{HANDLER_BYTES, Memory},
    output::Format,
    presence::Presence,
    task_watch, wiring,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog run\n  fleetlog run --projections unit-status,task-state\n  fleetlog run --once --format json\n  \
                        fleetlog run --handlers webhook-dispatch"
)]
pub(crate) struct Run {
    /// Only these projections (separated by commas); without it those of run.projections, or all
    #[arg(long, value_delimiter = ',')]
    projections: Vec<String>,
    /// Only these handlers (`webhook-NAME`, `task-watch`, separated by commas); without it those of run.handlers, or all. Where one of the
    /// two is given, nothing of the other kind runs that is not named
    #[arg(long, value_delimiter = ',')]
    handlers: Vec<String>,
    /// Stop once all that was there at the start is done (events, and commands in the inboxes), and say what was done. Handlers do not run: what they call is not in our hands
    #[arg(long)]
    once: bool,
    /// Stop with exit code 3 if a server is not there at the start, instead of waiting for it
    #[arg(long)]
    fail_fast: bool,
}

/// How often a server that is not there is asked again.
const SERVER_INTERVAL: Duration = Duration::from_secs(1);
/// How often partitions are made ahead and old ones dropped.
const MAINTAIN_INTERVAL: Duration = Duration::from_secs(3600);

pub(crate) async fn run(run: &Run, config: &Config, format: Format) -> anyhow::Result<Code> {
    let Chosen { projections: chosen, handlers } = chosen(run, config)?;
    let stop = stop_on_signal()?;
    // A question to brokers that are away may take ten seconds: a stop does not wait for it.
    tokio::select! {
        () = stop.cancelled() => return Ok(Code::Done),
        found = wait_for_kafka(run, config, &chosen, &handlers) => found?,
    }
    if run.fail_fast {
        check_sinks(config, &chosen).await?;
    }
    let instance = Instance::take(config)?;
    let mut started = Started::new(config, run, &instance, Memory::among(config, &chosen, handlers.len()))?;
    let wanted = |id: &str| chosen.iter().any(|projection| projection.id == id);
    macro_rules! start {
        (fold, $projector:expr) => {{
            let fold = Fold::new($projector);
            if wanted(fold.id()) {
                started.start(fold, SinkKind::Hot, wiring::redis_sink(config)?, &stop)?;
            }
        }};
        (ledger, $projector:expr) => {{
            let fold = Fold::new($projector);
            if wanted(fold.id()) {
                started.start(fold, SinkKind::History, wiring::database(config)?.fold_sink(), &stop)?;
            }
        }};
        (map, $projector:expr) => {{
            let map = Map($projector);
            if wanted(map.id()) {
                // Connections of its own: they live on its runtime and go with it.
                started.start(map, SinkKind::History, wiring::database(config)?.sink(), &stop)?;
            }
        }};
        (letters, $projector:expr) => {{
            let records = RecordMap::new($projector, &config.kafka.topic_prefix);
            if wanted(records.id()) {
                started.start(records, SinkKind::History, wiring::database(config)?.sink(), &stop)?;
            }
        }};
    }
    for_each_projection!(start);
    started.start_handlers(config, &handlers, &stop)?;
    if chosen.iter().any(|projection| projection.sink == SinkKind::History) {
        tokio::spawn(maintain(wiring::database(config)?, config.clone()));
    }
    if !config.run.http_address.is_empty() && !run.once {
        started.serve(config, Figures::new(config, &instance.name, wanted)?).await?;
    }
    tracing::info!(
        instance = instance.name,
        projections = chosen.len(),
        handlers = handlers.len(),
        "running"
    );
    tell_service_manager(NotifyState::Ready);
    if !config.run.presence || run.once {
        return started.finish(run.once, format, &stop).await;
    }
    let presence = started.presence(config, &instance)?;
    let over = stop.clone();
    let projections = async {
        let outcome = started.finish(run.once, format, &over).await;
        // Also where all of them stopped for good: what is to start the process again has to see it end.
        over.cancel();
        outcome
    };
    tokio::join!(projections, presence.run(stop)).0
}

/// What is running, and what every projection shares.
struct Started {
    config: EngineConfig,
    memory: Memory,
    mode: RunMode,
    kafka: KafkaSettings,
    catalogue: Arc<Catalogue>,
    halts: Arc<OpsHalts>,
    schemas: Arc<Decoder>,
    dead_letters: Arc<dyn DeadLetters>,
    logs: Arc<KafkaLogs>,
    inbox: Arc<KafkaInbox>,
    metrics: EngineMetrics,
    producer_metrics: ProducerMetrics,
    registry: prometheus::Registry,
    handles: Vec<Handle>,
    handlers: JoinSet<(String, End)>,
    running: JoinSet<(&'static str, Outcome)>,
    /// With `--once`: what begins when all others have ended, and on which runtime.
    last: Vec<(runtime::Handle, BoxFuture<'static, (&'static str, Outcome)>)>,
}

impl Started {
    fn new(config: &Config, run: &Run, instance: &Instance, memory: Memory) -> anyhow::Result<Self> {
        let registry = prometheus::Registry::new();
        let kafka = wiring::kafka_settings(config);
        let catalogue = Arc::new(wiring::catalogue(None)?);
        let producer_metrics = ProducerMetrics::register(&registry)?;
        let schemas = wiring::decoder(config)?;
        let halts = Arc::new(OpsHalts::new(config, Arc::clone(&schemas), producer_metrics.clone())?);
        let watched = Arc::clone(&halts);
        tokio::spawn(async move { watched.watch().await });
        Ok(Self {
            config: engine_config(config, instance),
            memory,
            mode: if run.once { RunMode::Once } else { RunMode::Continuous },
            halts,
            schemas,
            dead_letters: Arc::new(DeadLetterTopics::connect(&kafka, &catalogue, producer_metrics.clone())?),
            logs: Arc::new(KafkaLogs::new(&kafka)?),
            inbox: Arc::new(KafkaInbox::start(&kafka)?),
            metrics: EngineMetrics::register(&registry)?,
            producer_metrics,
            registry,
            handles: Vec::new(),
            handlers: JoinSet::new(),
            running: JoinSet::new(),
            last: Vec::new(),
            kafka,
            catalogue,
        })
    }

    fn start<P, S>(
        &mut self,
        projection: P,
        kind: SinkKind,
        sink: S,
        stop: &CancellationToken,
    ) -> anyhow::Result<()>
    where
        P: Projection,
        S: Sink<Write = P::Write>,
    {
        let id = projection.id();
        let runtime = ProjectionRuntime::new(id, self.config.worker_threads)?;
        let handle = runtime.handle().clone();
        let memory_bytes_max = self.memory.share(id, kind);
        let runner = ProjectionRunner::new(RunnerParts {
            projection,
            sink,
            schemas: Arc::clone(&self.schemas),
            dead_letters: Arc::clone(&self.dead_letters),
            logs: self.logs.clone(),
            inbox: Arc::clone(&self.inbox) as Arc<dyn Inbox>,
            kafka: self.kafka.clone(),
            catalogue: Arc::clone(&self.catalogue),
            config: EngineConfig {
                memory_bytes_max,
                batch_bytes_max: self.config.batch_bytes_max.min(memory_bytes_max),
                ..self.config.clone()
            },
            metrics: self.metrics.clone(),
            runtime,
        })
        .with_context(|| format!("projection `{id}`"))?
        .with_halts(self.halts.clone());
        self.handles.push(Handle { kind: "projection", id: id.to_owned(), status: runner.status() });
        let (mode, stop) = (self.mode, stop.clone());
        // On the projection's own runtime from the first call on: the sink connects there, and its work is counted.
        let run = async move { (id, runner.run(mode, stop).await) };
        if mode == RunMode::Once && !P::READS_EVENTS {
            // What the others set aside in this very run is to be among the letters that it sees.
            self.last.push((handle, run.boxed()));
        } else {
            self.running.spawn_on(run, &handle);
        }
        Ok(())
    }

    fn start_handlers(
        &mut self,
        config: &Config,
        chosen: &[handlers::Described],
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        if chosen.is_empty() {
            return Ok(());
        }
        let metrics = HandlerMetrics::register(&self.registry)?;
        let topics = handlers::waiting_topics(config, &self.catalogue);
        let waiting: Arc<dyn WaitingTopics> =
            Arc::new(RetryTopics::connect(&self.kafka, &topics, self.producer_metrics.clone())?);
        for described in chosen {
            let (waiting, metrics, stop) = (Arc::clone(&waiting), metrics.clone(), stop.clone());
            let started = match &described.kind {
                handlers::Kind::Webhook(subscription) => Webhook::new(subscription)
                    .map_err(anyhow::Error::from)
                    .and_then(|webhook| self.start_handler(webhook, described, waiting, metrics, stop)),
                handlers::Kind::TaskWatch(rules) => {
                    task_watch::handler(config, rules, self.producer_metrics.clone())
                        .and_then(|watch| self.start_handler(watch, described, waiting, metrics, stop))
                }
            };
            started.with_context(|| format!("handler `{}`", described.id))?;
        }
        Ok(())
    }

    fn start_handler<H: Handler>(
        &mut self,
        handler: H,
        described: &handlers::Described,
        waiting: Arc<dyn WaitingTopics>,
        metrics: HandlerMetrics,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let id = described.id.clone();
        let runtime = ProjectionRuntime::new(&id, self.config.worker_threads)?;
        let handle = runtime.handle().clone();
        let runner = HandlerRunner::new(HandlerParts {
            handler,
            schemas: Arc::clone(&self.schemas),
            waiting,
            dead_letters: Arc::clone(&self.dead_letters),
            logs: self.logs.clone(),
            kafka: self.kafka.clone(),
            topics: described.topics.clone(),
            settings: handler_settings(described),
            config: EngineConfig {
                memory_bytes_max: HANDLER_BYTES,
                batch_bytes_max: self.config.batch_bytes_max.min(HANDLER_BYTES),
                ..self.config.clone()
            },
            metrics,
            runtime,
        })?
        .with_ops(self.halts.clone(), self.halts.clone());
        self.handles.push(Handle { kind: "handler", id: id.clone(), status: runner.status() });
        self.handlers.spawn_on(async move { (id, runner.run(stop).await) }, &handle);
        Ok(())
    }

    /// Metrics and probes over HTTP.
    async fn serve(&self, config: &Config, figures: Figures) -> anyhow::Result<()> {
        let (registry, health) = (self.registry.clone(), Running(self.handles.clone()));
        let address = &config.run.http_address;
        let address = http::serve("run.http_address", address, registry, Some(figures), health).await?;
        tracing::info!("http://{address}/metrics, /healthz, /readyz");
        Ok(())
    }

    /// The worker that watches for units that fall silent.
    fn presence(&self, config: &Config, instance: &Instance) -> anyhow::Result<Presence> {
        let metrics = PresenceMetrics::register(&self.registry)?;
        Presence::new(config, &instance.name, metrics, self.producer_metrics.clone())
    }

    /// Waits for all projections and handlers; one that stopped for good does not stop the others.
    /// Where all have failed the process ends: what started it may start it again. One that is halted waits for a person,
    /// and the process with it.
    async fn finish(mut self, once: bool, format: Format, stop: &CancellationToken) -> anyhow::Result<Code> {
        let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
        loop {
            let runs = !self.running.is_empty() || !self.handlers.is_empty();
            tokio::select! {
                Some(outcome) = self.running.join_next() => {
                    let (id, outcome) = outcome?;
                    if let End::Failed(why) = &outcome.end {
                        failed.push((id.to_owned(), why.clone()));
                    }
                    outcomes.push((id, outcome));
                }
                Some(ended) = self.handlers.join_next() => {
                    let (id, end) = ended?;
                    if let End::Failed(why) = end {
                        failed.push((id, why));
                    }
                }
                () = tokio::time::sleep(FAILED_INTERVAL), if runs => {
                    if self.handles.iter().all(|handle| !handle.status.snapshot().healthy()) {
                        stop.cancel();
                    }
                }
                else => {
                    if self.last.is_empty() {
                        break;
                    }
                    for (handle, run) in self.last.drain(..) {
                        self.running.spawn_on(run, &handle);
                    }
                }
            }
        }
        let place = |id: &str| self.handles.iter().position(|known| known.id == id);
        outcomes.sort_by_key(|(id, _)| place(id));
        failed.sort_by_key(|(id, _)| place(id));
        if once {
            report(&outcomes, format)?;
        }
        for (id, why) in &failed {
            if let Some(handle) = place(id).and_then(|at| self.handles.get(at)) {
                eprintln!("error: {} `{id}` {}: {why}", handle.kind, handle.stand());
            }
        }
        Ok(if failed.is_empty() { Code::Done } else { Code::Found })
    }
}

/// How often it is looked whether all projections have failed.
const FAILED_INTERVAL: Duration = Duration::from_millis(200);

fn engine_config(config: &Config, instance: &Instance) -> EngineConfig {
    EngineConfig {
        instance: instance.name.clone(),
        batch_events_max: config.run.batch_events_max,
        set_aside_in_a_row_max: config.run.set_aside_in_a_row_max,
        set_aside_ratio_max: config.run.set_aside_ratio_max,
        set_aside_ratio_events: config.run.set_aside_ratio_events,
        drain_deadline_ms: config.run.drain_deadline_ms,
        session_timeout_ms: config.run.session_timeout_ms,
        application_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..EngineConfig::default()
    }
}

/// Tells systemd how far this process is, where one waits for that (`Type=notify`).
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// SIGTERM and Ctrl-C ask for a drain; the second one ends at once.
pub(crate) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tell_service_manager(NotifyState::Stopping);
        tracing::info!("stopping: finishing the writes in flight");
        asked.cancel();
        next().await;
        tracing::warn!("stopping at once; what was in flight is read again next time");
        std::process::exit(Code::Failed as i32);
    });
    Ok(stop)
}

/// Looks once at every store that the projections need.
async fn check_sinks(config: &Config, chosen: &[Described]) -> anyhow::Result<()> {
    for projection in chosen {
        let checked: Result<(), SinkError> = match projection.sink {
            SinkKind::Hot => wiring::redis_sink(config)?.check().await,
            SinkKind::History => wiring::history_sink(config)?.check().await,
        };
        checked.map_err(|error| match error.fault {
            Fault::Transient => lanes::unreachable(config, projection, error),
            _ => Failure { code: Code::Found, message: error.to_string(), hint: None }.into(),
        })?;
    }
    Ok(())
}

/// Makes partitions ahead and drops old ones, now and every hour.
async fn maintain(database: Database, config: Config) {
    loop {
        match database.maintain(migrate::now(), migrate::retention(&config)).await {
            Ok(done) if done.made.is_empty() && done.dropped.is_empty() => {}
            Ok(done) => tracing::info!(made = ?done.made, dropped = ?done.dropped, "partitions"),
            // The projections themselves wait for the database, or stop; this only comes again.
            Err(error) => tracing::warn!(%error, "partitions are not maintained now"),
        }
        tokio::time::sleep(MAINTAIN_INTERVAL).await;
    }
}
