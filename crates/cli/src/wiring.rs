//! From settings to concrete parts: the only place that knows them all.

use std::time::Duration;

use anyhow::Context;
use fleetlog_event::catalogue::Catalogue;
use fleetlog_kafka::{Admin, KafkaSettings};

use crate::{
    config::Config,
    exit::{Code, Failure},
};

/// How long a command waits for a first answer of the brokers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

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
    if let Err(error) = admin.cluster(BROKER_TIMEOUT).await {
        let message = format!("kafka at {} does not answer: {error}", config.kafka.brokers);
        return Err(Failure::new(Code::Unreachable, message, "is it running, and is kafka.brokers right?").into());
    }
    Ok(admin)
}

/// The topic files of a folder, or those compiled in.
pub(crate) fn catalogue(dir: Option<&std::path::Path>) -> anyhow::Result<Catalogue> {
    let Some(dir) = dir else { return Ok(Catalogue::builtin()) };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("folder of topic files `{}`", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).with_context(|| format!("topic file `{}`", path.display()))?;
            files.push((name, text));
        }
    }
    if files.is_empty() {
        let message = format!("folder `{}` holds no topic files (*.toml)", dir.display());
        return Err(Failure::new(Code::Usage, message, "without --dir the compiled-in files are used").into());
    }
    files.sort();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    Catalogue::parse(&files).map_err(|error| Failure { code: Code::Usage, message: error.to_string(), hint: None }.into())
}
