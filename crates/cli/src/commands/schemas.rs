//! `fleetlog schemas check|list|show`

use std::path::PathBuf;

use anyhow::Context;
use fleetlog_codec::{builtin_schemas, compat};
use serde_json::{Value, json};

use crate::{
    commands::emit,
    config::Config,
    exit::Code,
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check schema files: every version readable by every other (FULL_TRANSITIVE), the newest the same as its struct
    #[command(after_help = "Example: fleetlog schemas check schemas")]
    Check {
        /// The folder with the files `<topic>/<Event>.v<N>.avsc`
        #[arg(default_value = "schemas")]
        dir: PathBuf,
    },
    /// List the schemas compiled in
    #[command(after_help = "Example: fleetlog schemas list --format json")]
    List,
    /// Show an event's newest schema
    #[command(after_help = "Example: fleetlog schemas show FaultRaised")]
    Show {
        /// The event's type, such as FaultRaised or task.Created
        event: String,
    },
    /// Put every compiled-in schema where readers look: the registry if one is set, else the topic `schemas`.
    /// Producers do this by themselves before their first event
    #[command(after_help = "Example: FLEETLOG_REGISTRY__URL=http://127.0.0.1:8081 fleetlog schemas publish")]
    Publish,
}

pub(crate) async fn run(command: &Command, config: &Config, format: Format) -> anyhow::Result<Code> {
    match command {
        Command::Check { dir } => check(dir, format),
        Command::List => list(format),
        Command::Show { event } => {
            let name = emit::full_name(event)?;
            let schema = fleetlog_codec::newest(name).with_context(|| format!("{name} has no schema"))?;
            let json: Value = serde_json::from_str(schema.json())?;
            output::json(&json)?;
            Ok(Code::Done)
        }
        Command::Publish => publish(config).await,
    }
}

fn check(dir: &std::path::Path, format: Format) -> anyhow::Result<Code> {
    let texts = compat::read_folder(dir).with_context(|| format!("folder of schemas `{}`", dir.display()))?;
    let findings = compat::check(&texts);
    match format {
        Format::Json => output::json(
            &findings.iter().map(|f| json!({ "file": f.path, "problem": f.problem })).collect::<Vec<_>>(),
        )?,
        Format::Table => {
            findings.iter().for_each(|finding| output::line(&finding.to_string()));
            output::line(&format!("{} files, {} problems", texts.len(), findings.len()));
        }
    }
    Ok(if findings.is_empty() { Code::Done } else { Code::Found })
}

fn list(format: Format) -> anyhow::Result<Code> {
    let rows = builtin_schemas().iter().map(|schema| {
        let version = schema.version().map_or_else(String::new, |version| version.to_string());
        [schema.name().to_owned(), version, schema.fingerprint().to_string()]
    });
    match format {
        Format::Json => output::json(
            &rows.map(|[name, version, fingerprint]| json!({ "event": name, "version": version, "fingerprint": fingerprint })).collect::<Vec<_>>(),
        )?,
        Format::Table => output::table(["event", "version", "fingerprint"], rows),
    }
    Ok(Code::Done)
}

async fn publish(config: &Config) -> anyhow::Result<Code> {
    use fleetlog_event::FleetEvent;

    wiring::admin(config).await?;
    let schemas = wiring::producer_schemas(config)?;
    let mut published = 0;
    for event in FleetEvent::types() {
        schemas.ready(event.name, &format!("{}{}", config.kafka.topic_prefix, event.topic)).await?;
        published += 1;
    }
    let place = if config.registry.url.is_empty() { "the topic `schemas`" } else { "the registry" };
    output::line(&format!("the newest schemas of {published} events are in {place}"));
    Ok(Code::Done)
}
