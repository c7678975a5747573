//! Halted projections and handlers, and open circuits: what topic `ops` says of them, for the processes that run them and for the commands that show them.

use std::{
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use fleetlog_codec::Decoder;
use fleetlog_dead_letters::{Halts, HaltsReader, ToolError};
use fleetlog_engine::{Failure, ports};
use fleetlog_event::{
    Event,
    ops::{CircuitChanged, ProjectionHalted, resume_command},
};
use fleetlog_kafka::KafkaFault;
use fleetlog_producer::{BatchError, EventProducer, ProducerMetrics, SendError};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::{config::Config, output, wiring};

/// How often a process asks whether there is anything new on topic `ops`: one question for all of its projections.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// [`ports::Halts`] over topic `ops`. One for a process.
pub(crate) struct OpsHalts {
    config: Config,
    metrics: ProducerMetrics,
    reader: Mutex<HaltsReader>,
    known: watch::Sender<Halts>,
    /// What was complained about last: once for each reason, not once a look.
    told: RwLock<Option<String>>,
    /// Connects when there is something to write down.
    producer: OnceLock<EventProducer>,
}

impl OpsHalts {
    pub(crate) fn new(
        config: &Config,
        decoder: Arc<Decoder>,
        metrics: ProducerMetrics,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            config: config.clone(),
            metrics,
            reader: Mutex::new(HaltsReader::new(&wiring::kafka_settings(config), decoder)?),
            known: watch::Sender::new(Halts::default()),
            told: RwLock::new(None),
            producer: OnceLock::new(),
        })
    }

    /// Looks again and again, for as long as the process lives.
    pub(crate) async fn watch(&self) {
        loop {
            // A cluster that cannot be asked is told of, and asked again; what was known goes on to count.
            let _ = self.look().await;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Reads on to an end seen after this was called; whether the topic could be read.
    async fn look(&self) -> Result<bool, Failure> {
        let mut reader = self.reader.lock().await;
        match reader.read_on().await {
            Ok(halts) => {
                self.known.send_if_modified(|known| {
                    let is_new = known != halts;
                    if is_new {
                        known.clone_from(halts);
                    }
                    is_new
                });
                self.tell(None);
                Ok(true)
            }
            Err(error) if is_transient(&error) => {
                let what = format!("reading halts on topic `ops`: {error}");
                self.tell(Some(format!("{what}; asking again")));
                Err(Failure::transient(what))
            }
            Err(ToolError::NoOpsTopic(topic)) => {
                let what =
                    format!("the cluster has no topic {topic}: nothing can be halted by it or resumed");
                self.tell(Some(format!("{what}; `fleetlog topics apply` creates it")));
                Ok(false)
            }
            Err(error) => {
                let what = format!("halts on topic `ops` cannot be read: {error}");
                self.tell(Some(format!("{what}; they run without that")));
                Ok(false)
            }
        }
    }

    fn tell(&self, what: Option<String>) {
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        if *told != what {
            if let Some(what) = &what {
                tracing::warn!("{what}");
            }
            *told = what;
        }
    }

    fn of(&self, group: &str) -> ports::Standing {
        let state = self.known.borrow().of(group);
        ports::Standing { halt: state.halt, resumes: state.resumes, set_asides_max: state.set_asides_max }
    }

    fn producer(&self) -> Result<&EventProducer, Failure> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let kafka = wiring::kafka_settings(&self.config);
        let made = wiring::producer_with(&self.config, &kafka, self.metrics.clone());
        let made = made.map_err(|error| Failure::permanent(crate::exit::text(&error)))?;
        Ok(self.producer.get_or_init(|| made))
    }

    async fn write_down(&self, event: impl Event) -> Result<(), Failure> {
        if !self.look().await? {
            let what =
                "topic ops is not there, or cannot be read: `fleetlog topics apply`, `fleetlog doctor`";
            return Err(Failure::permanent(what));
        }
        let failed = |error: BatchError| match &error {
            BatchError::Send(SendError::Schema(_)) => Failure::transient(error.to_string()),
            BatchError::Delivery(delivery) if delivery.fault() == KafkaFault::Transient => {
                Failure::transient(error.to_string())
            }
            _ => Failure::permanent(error.to_string()),
        };
        self.producer()?.send_all([event]).await.all().await.map(drop).map_err(failed)
    }
}

impl ports::Halts for OpsHalts {
    fn current<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<ports::Standing, Failure>> {
        async move {
            self.look().await?;
            Ok(self.of(group))
        }
        .boxed()
    }

    fn changed<'a>(&'a self, group: &'a str, known: &'a ports::Standing) -> BoxFuture<'a, ports::Standing> {
        async move {
            let mut halts = self.known.subscribe();
            loop {
                halts.borrow_and_update();
                let now = self.of(group);
                if now != *known {
                    return now;
                }
                if halts.changed().await.is_err() {
                    // Cannot come: the sender is ours.
                    std::future::pending::<()>().await;
                }
            }
        }
        .boxed()
    }

    fn halt<'a>(&'a self, halt: &'a ProjectionHalted) -> BoxFuture<'a, Result<(), Failure>> {
        self.write_down(halt.clone()).boxed()
    }
}

impl ports::Circuits for OpsHalts {
    fn is_open(&self, group: &str, who: &str) -> bool {
        self.known.borrow().open_circuits(group).any(|change| change.who == who)
    }

    fn changed<'a>(&'a self, change: &'a CircuitChanged) -> BoxFuture<'a, Result<(), Failure>> {
        self.write_down(change.clone()).boxed()
    }
}

fn is_transient(error: &ToolError) -> bool {
    match error {
        ToolError::Read(error) => error.fault() == KafkaFault::Transient,
        ToolError::Cluster(error) => error.fault() == KafkaFault::Transient,
        ToolError::Schema(_) | ToolError::Interrupted => true,
        _ => false,
    }
}

/// What topic `ops` says now, for commands that only show it: without the topic nothing is halted.
pub(crate) async fn read(config: &Config) -> anyhow::Result<Halts> {
    let mut reader = HaltsReader::new(&wiring::kafka_settings(config), wiring::decoder(config)?)?;
    match reader.read_on().await {
        Ok(halts) => Ok(halts.clone()),
        Err(ToolError::NoOpsTopic(_)) => Ok(Halts::default()),
        Err(error) => Err(error.into()),
    }
}

/// A halt as commands show it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HaltView {
    /// The halt's own id.
    id: String,
    cause: &'static str,
    detail: String,
    /// When, RFC 3339.
    at: String,
    by: String,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    /// The command to go on with.
    go_on: String,
}

impl HaltView {
    pub(crate) fn of(halt: &ProjectionHalted) -> Self {
        Self {
            id: halt.meta.event_id.to_string(),
            cause: halt.cause().as_str(),
            detail: halt.detail.clone(),
            at: output::time(halt.meta.recorded_at.0),
            by: halt.who.clone(),
            topic: halt.topic.clone(),
            partition: halt.partition,
            offset: halt.offset,
            go_on: resume_command(&halt.projection),
        }
    }

    /// For people, in a line.
    fn line(&self, id: &str) -> String {
        let Self { at, by, detail, go_on, .. } = self;
        format!("{id} is halted since {at}, by {by}: {detail}; go on with: {go_on}")
    }
}

/// The halt of a group, if it is halted.
pub(crate) fn view(halts: &Halts, group: &str) -> Option<HaltView> {
    halts.of(group).halt.as_ref().map(HaltView::of)
}

/// Says under a table which of its projections or handlers are halted.
pub(crate) fn tell<'a>(halted: impl IntoIterator<Item = (&'a str, &'a HaltView)>) {
    let mut told = Vec::new();
    for (id, halt) in halted {
        if !told.contains(&id) {
            told.push(id);
            output::line(&halt.line(id));
        }
    }
}

/// An open circuit as commands show it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CircuitView {
    /// The process whose it is.
    process: String,
    /// Since when, RFC 3339.
    since: String,
    detail: String,
}

impl CircuitView {
    pub(crate) fn of(change: &CircuitChanged) -> Self {
        Self {
            process: change.who.clone(),
            since: output::time(change.meta.recorded_at.0),
            detail: change.detail.clone(),
        }
    }

    /// For people, in a line.
    pub(crate) fn line(&self, handler: &str) -> String {
        let Self { process, since, detail } = self;
        format!("{handler}: its circuit is open in {process} since {since}: {detail}")
    }
}
