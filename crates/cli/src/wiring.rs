//! From settings to concrete parts: the only place that knows them all.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use fleetlog_codec::{Decoder, FirstFound, RegistryAuth, RegistryClient, RegistrySettings, SchemaSource};
use fleetlog_dead_letters::redrive::Reader;
use fleetlog_engine::{DeadLetter, EngineConfig, Origin, ports::DeadLetters};
use fleetlog_event::catalogue::{Catalogue, TopicSpec, is_of_dead_letters};
use fleetlog_kafka::{Admin, ClusterError, ClusterFacts, KafkaSettings, SchemaTopic, Trouble, watch_trouble};
use fleetlog_producer::{EventProducer, ProducerMetrics, ProducerSettings, Schemas};
use fleetlog_projection::SetAside;
use fleetlog_projections::{Described, event_history::EventRow};
use fleetlog_sink_redis::{RedisSink, RedisSinkSettings};
use fleetlog_sink_timescale::{ConnectionSettings, Database, SqlSink};
use fleetlog_trust::CertificateFault;

use crate::{
    command_lanes,
    commands::migrate,
    config::{self, Config},
    engine_parts::DeadLetterTopics,
    exit::{Code, Failure},
    handlers,
    lanes::Lane,
};

/// How long a command waits for a first answer of the brokers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to look why: less than the question takes, so that its end is not all there is to say.
const WATCH_TIMEOUT: Duration = Duration::from_secs(8);

/// How long another broker may take to answer when one has refused us, or its certificate was refused.
const GRACE: Duration = Duration::from_secs(1);

/// After how long it says that it waits.
const SAY_AFTER: Duration = Duration::from_millis(500);

/// The cluster of the settings.
pub(crate) fn kafka_settings(config: &Config) -> KafkaSettings {
    KafkaSettings {
        brokers: config.kafka.brokers.clone(),
        topic_prefix: config.kafka.topic_prefix.clone(),
        client_id: config.kafka.client_id.clone(),
        replication: replication(config),
        properties: config.kafka.properties.clone(),
        ..KafkaSettings::default()
    }
}

/// The replication factor that overrides the topic files'.
pub(crate) fn replication(config: &Config) -> Option<i32> {
    (config.kafka.replication > 0).then_some(config.kafka.replication)
}

/// An administration client of a cluster that answers.
pub(crate) async fn admin(config: &Config) -> anyhow::Result<Admin> {
    let admin = Admin::new(&kafka_settings(config))?;
    match answer(&admin, config).await {
        Ok(_) => Ok(admin),
        Err(silence) => Err(silence.into()),
    }
}

/// No broker answered.
#[derive(Debug)]
pub(crate) struct Silence {
    failure: Failure,
    /// A refused certificate or password: waiting does not mend it.
    pub(crate) needs_a_person: bool,
}

impl Silence {
    fn of(brokers: &str, error: &ClusterError, trouble: Option<&Trouble>) -> Self {
        let why = trouble.map_or_else(|| error.to_string(), |trouble| trouble.text.clone());
        let hint =
            trouble.map_or_else(|| "is it running, and is kafka.brokers right?".to_owned(), Trouble::remedy);
        let message = format!("kafka at {brokers} does not answer: {why}");
        let failure = Failure::new(Code::Unreachable, message, hint);
        Self { failure, needs_a_person: trouble.is_some_and(Trouble::needs_a_person) }
    }
}

impl From<Silence> for anyhow::Error {
    fn from(silence: Silence) -> Self {
        silence.failure.into()
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.failure.fmt(f)
    }
}

/// The brokers' first answer; says that it waits where there is none at once, and looks why.
pub(crate) async fn answer(admin: &Admin, config: &Config) -> Result<ClusterFacts, Silence> {
    let brokers = &config.kafka.brokers;
    let asked = admin.cluster(BROKER_TIMEOUT);
    tokio::pin!(asked);
    let silence = |error, trouble: Option<&Trouble>| Silence::of(brokers, &error, trouble);
    tokio::select! {
        answer = &mut asked => return answer.map_err(|error| silence(error, None)),
        () = tokio::time::sleep(SAY_AFTER) => {}
    }
    tracing::warn!("waiting for kafka at {brokers}, at most {} s", BROKER_TIMEOUT.as_secs());
    let settings = kafka_settings(config);
    let watched = watch_trouble(&settings, WATCH_TIMEOUT);
    let trouble = tokio::select! {
        answer = &mut asked => return answer.map_err(|error| silence(error, None)),
        trouble = watched => trouble,
    };
    // Some other broker may still answer; and what needs a person is not waited for to the end.
    let patience = if trouble.as_ref().is_some_and(Trouble::needs_a_person) { GRACE } else { BROKER_TIMEOUT };
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|error| silence(error, trouble.as_ref())),
        Err(_) => Err(silence(ClusterError::Interrupted("the question".to_owned()), trouble.as_ref())),
    }
}

/// The topics that the cluster has to have: those of the catalogue, an inbox for each projection and topic that it reads, and for
/// each handler those on which its events wait.
pub(crate) fn topic_specs(config: &Config, catalogue: &Catalogue) -> Vec<TopicSpec> {
    let replication = replication(config);
    let mut specs = catalogue.expand(&config.kafka.topic_prefix, replication);
    for Reader { topic, inbox, .. } in command_lanes::readers(config) {
        let stem = topic.strip_prefix(&config.kafka.topic_prefix).unwrap_or(&topic);
        specs.extend(catalogue.topic(stem).and_then(|topic| topic.inbox(inbox, replication)));
    }
    specs.extend(handlers::waiting_topics(config, catalogue));
    specs
}

/// The topic files of a folder, or those compiled in.
pub(crate) fn catalogue(dir: Option<&std::path::Path>) -> anyhow::Result<Catalogue> {
    let Some(dir) = dir else { return Ok(Catalogue::builtin()) };
    let mut files = Vec::new();
    for entry in
        std::fs::read_dir(dir).with_context(|| format!("folder of topic files `{}`", dir.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("topic file `{}`", path.display()))?;
            files.push((name, text));
        }
    }
    if files.is_empty() {
        let message = format!("folder `{}` holds no topic files (*.toml)", dir.display());
        return Err(Failure::new(Code::Usage, message, "without --dir the compiled-in files are used").into());
    }
    files.sort();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    Catalogue::parse(&files)
        .map_err(|error| Failure { code: Code::Usage, message: error.to_string(), hint: None }.into())
}

/// The database of the settings; connects when it is used.
pub(crate) fn database(config: &Config) -> anyhow::Result<Database> {
    Ok(Database::new(&ConnectionSettings {
        url: config.postgres.url.clone(),
        connections_max: config.postgres.connections_max as usize,
        timeout: Duration::from_millis(config.postgres.timeout_ms),
    })?)
}

/// Where hot state is.
pub(crate) fn redis_settings(config: &Config) -> anyhow::Result<RedisSinkSettings> {
    Ok(RedisSinkSettings {
        key_prefix: config.redis.key_prefix.clone(),
        lane_prefix: config.kafka.topic_prefix.clone(),
        timeout_ms: config.redis.timeout_ms,
        ca_pem: authority("redis.ca_file", &config.redis.ca_file)?,
        ..RedisSinkSettings::new(config.redis.url.clone())
    })
}

/// Hot state of the settings; connects when it is used.
pub(crate) fn redis_sink(config: &Config) -> anyhow::Result<RedisSink> {
    let settings = redis_settings(config)?;
    // Two entities a call, one call at a time: so that there is something between the calls of one commit.
    #[cfg(feature = "fault-injection")]
    let settings = RedisSinkSettings { call_items_max: 2, window_bytes_max: 1, ..settings };
    Ok(RedisSink::open(settings)?)
}

/// A client of the Redis of the settings, for commands that read by themselves.
pub(crate) fn redis_client(config: &Config) -> anyhow::Result<redis::Client> {
    let ca_pem = authority("redis.ca_file", &config.redis.ca_file)?;
    fleetlog_sink_redis::client(&config.redis.url, ca_pem.as_deref())
        .with_context(|| format!("redis.url `{}`", config::redact_url(&config.redis.url)))
}

/// What to do about a store (`redis`, `postgres`: its section of the settings) that does not answer.
pub(crate) fn hint(store: &str, error: &(dyn std::error::Error + 'static)) -> String {
    CertificateFault::in_chain(error).map_or_else(
        || format!("is it running, and are {store}.url, user and password right? (fleetlog config show)"),
        |fault| format!("{fault}: {}", fault.remedy(&format!("{store}.ca_file"))),
    )
}

/// The certificates of a file that the settings name, if they do.
pub(crate) fn authority(key: &str, file: &str) -> anyhow::Result<Option<Vec<u8>>> {
    if file.is_empty() {
        return Ok(None);
    }
    Ok(Some(std::fs::read(file).with_context(|| format!("`{key}` names `{file}`"))?))
}

/// History of the settings. Reading progress and moving it need no row type; this one stands for all.
pub(crate) fn history_sink(config: &Config) -> anyhow::Result<SqlSink<EventRow>> {
    Ok(database(config)?.sink())
}

/// The consumer group of a projection's version.
pub(crate) fn group(config: &Config, projection: &Described) -> String {
    fleetlog_engine::group_name(&config.kafka.topic_prefix, projection.id, projection.version)
}

/// A value never used before, for a link.
pub(crate) fn nonce() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Processes that are members of the projection's group.
pub(crate) async fn members(config: &Config, projection: &Described) -> anyhow::Result<usize> {
    let admin = Admin::new(&kafka_settings(config))?;
    Ok(admin.group(&group(config, projection)).await?.members.len())
}

/// Decodes whatever lies on the topics: compiled-in schemas, then the registry (if one is set), then the schema topic.
pub(crate) fn decoder(config: &Config) -> anyhow::Result<Arc<Decoder>> {
    let mut sources: Vec<Arc<dyn SchemaSource>> = Vec::new();
    if let Some(registry) = registry(config)? {
        sources.push(Arc::new(registry));
    }
    sources.push(Arc::new(SchemaTopic::new(&kafka_settings(config))?));
    Ok(Arc::new(Decoder::new(Arc::new(FirstFound(sources)))))
}

/// The schema registry of the settings, if one is set.
pub(crate) fn registry(config: &Config) -> anyhow::Result<Option<RegistryClient>> {
    let settings = &config.registry;
    if settings.url.is_empty() {
        return Ok(None);
    }
    let auth = (!settings.username.is_empty())
        .then(|| RegistryAuth::Basic(settings.username.clone(), settings.password.clone()));
    let settings = RegistrySettings {
        auth,
        timeout_ms: settings.timeout_ms,
        ca_pem: authority("registry.ca_file", &settings.ca_file)?,
        ..RegistrySettings::new(settings.url.clone())
    };
    Ok(Some(RegistryClient::new(&settings)?))
}

/// Where a producer puts its schemas: the registry if one is set, else the schema topic.
pub(crate) fn producer_schemas(config: &Config) -> anyhow::Result<Schemas> {
    Ok(match registry(config)? {
        Some(registry) => Schemas::in_registry(registry),
        None => Schemas::on_topic(&kafka_settings(config))?,
    })
}

/// A producer of the settings.
pub(crate) fn producer(config: &Config) -> anyhow::Result<EventProducer> {
    producer_with(config, &kafka_settings(config), ProducerMetrics::unregistered()?)
}

/// A producer of the settings, with client settings and metrics of one's own.
pub(crate) fn producer_with(
    config: &Config,
    kafka: &KafkaSettings,
    metrics: ProducerMetrics,
) -> anyhow::Result<EventProducer> {
    let settings = ProducerSettings {
        in_flight_records_max: config.producer.in_flight_events_max,
        in_flight_bytes_max: config.producer.in_flight_bytes_max,
    };
    Ok(EventProducer::connect_with(kafka, producer_schemas(config)?, &settings, metrics)?)
}

/// Settings of a producer that gives up what is not acknowledged in time: for who judges again then. What waits for a cluster
/// that is away must not be said minutes later.
pub(crate) fn giving_up_after(mut kafka: KafkaSettings, timeout_ms: u64) -> KafkaSettings {
    kafka.properties.remove("delivery.timeout.ms");
    kafka.properties.insert("message.timeout.ms".to_owned(), timeout_ms.to_string());
    kafka
}

/// Sends what a projection set aside to its dead-letter topic, and waits until it is acknowledged. What lies on a dead-letter
/// topic already stays there.
pub(crate) async fn publish_dead_letters(
    config: &Config,
    projection: &Described,
    lane: &Lane,
    set_aside: &[SetAside],
) -> anyhow::Result<()> {
    if is_of_dead_letters(&lane.id.topic) {
        return Ok(());
    }
    let group = group(config, projection);
    let engine = EngineConfig::default();
    let origin = Origin {
        lane: &lane.id,
        log: lane.log_id,
        group: &group,
        application_version: env!("CARGO_PKG_VERSION"),
        now: migrate::now(),
    };
    let letters: Vec<DeadLetter> =
        set_aside.iter().map(|aside| DeadLetter::new(aside, &origin, engine.dead_letter_bytes_max)).collect();
    let metrics = ProducerMetrics::unregistered()?;
    DeadLetterTopics::connect(&kafka_settings(config), &catalogue(None)?, metrics)?.publish(&letters).await?;
    Ok(())
}
