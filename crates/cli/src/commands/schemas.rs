//! `fleetlog schemas check|list|describe|show|publish`

use std::path::PathBuf;

use anyhow::Context;
use fleetlog_codec::{
    builtin_schemas, compat,
    reference::{self, FieldReference},
};
use fleetlog_event::{EventType, FleetEvent};
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
    /// Describe an event for who sends it: fields, what they have to be, and an example
    #[command(after_help = "Example: fleetlog schemas describe DoorChanged")]
    Describe {
        /// The event's type, such as DoorChanged or task.Created
        event: String,
    },
    /// Show an event's newest schema, as Avro has it
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
        Command::Describe { event } => describe(emit::event_type(event)?, format),
        Command::Show { event } => {
            let name = emit::event_type(event)?.name;
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

fn describe(event: EventType, format: Format) -> anyhow::Result<Code> {
    let no_schema = || format!("{} has no schema", event.name);
    let described = reference::describe(event).with_context(no_schema)?;
    let example = reference::example(event).with_context(no_schema)?;
    // Its own first: the head is the same for all.
    let fields: Vec<FieldReference> = described.fields.into_iter().chain(reference::head(event)).collect();
    match format {
        Format::Json => output::json(&json!({
            "event": event.name, "topic": event.topic, "version": described.version, "doc": described.doc,
            "fields": fields.iter().map(|field| json!({
                "field": field.path, "type": field.type_name.replace('`', ""), "default": field.default,
                "required": field.default.is_none(), "has_to_be": field.rule.map(|rule| rule.to_string()),
                "doc": field.doc,
            })).collect::<Vec<_>>(),
            "example": example,
        }))?,
        Format::Table => {
            output::line(&format!("{} (topic {}, version {})", event.name, event.topic, described.version));
            output::line(&described.doc);
            for field in &fields {
                output::line("");
                output::line(&headline(field));
                output::line(&format!("  {}", field.doc));
            }
            output::line("");
            output::line(&format!("fleetlog emit {} --json '{example}'", event.short_name()));
        }
    }
    Ok(Code::Done)
}

/// A field in one line: `door: string, required; a text of 1 to 512 bytes`.
fn headline(field: &FieldReference) -> String {
    let FieldReference { path, type_name, default, rule, .. } = field;
    let default = match default {
        None => "required".to_owned(),
        Some(Value::Null) => "may be absent".to_owned(),
        Some(value) => format!("{value} if absent"),
    };
    let rule = rule.map(|rule| format!("; {rule}")).unwrap_or_default();
    format!("{path}: {}, {default}{rule}", type_name.replace('`', ""))
}

async fn publish(config: &Config) -> anyhow::Result<Code> {
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
