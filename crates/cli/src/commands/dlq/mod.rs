//! `fleetlog dlq`: what could not be processed. Everything is a call of `fleetlog_dead_letters`; here are arguments, tables and
//! words.

mod discard;
mod export;
mod failure;
mod list;
mod select;
mod show;
mod stats;

use fleetlog_dead_letters::{Found, Tools};

use crate::{config::Config, exit::Code, output::Format, wiring};

pub(crate) use discard::operator;
pub(crate) use failure::failure;
#[cfg(test)]
pub(crate) use show::hex_dump;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How many there are: by reason, class, event type, group and hour, and how old the oldest is
    #[command(
        after_help = "Examples:\n  fleetlog dlq stats\n  fleetlog dlq stats --topic task --since 2h --format json"
    )]
    Stats(stats::Stats),
    /// List dead letters, the oldest first
    #[command(
        after_help = "Examples:\n  fleetlog dlq list\n  fleetlog dlq list --reason unknown_schema --format json\n  \
                      fleetlog dlq list --site 504 --since 2h --state any"
    )]
    List(list::List),
    /// Show one: the event (or its bytes), the headers, the error, what became of it
    #[command(after_help = "Example: fleetlog dlq show robot-dlq/0/17")]
    Show(show::Show),
    /// Write them as JSON lines, each with all bytes of its record (base64)
    #[command(after_help = "Examples:\n  fleetlog dlq export --reason undecodable > undecodable.jsonl\n  \
                      fleetlog dlq export --state any --out dead-letters.jsonl\n\n\
                      The value of each: jq -r .record.value_base64 FILE | head -1 | base64 -d")]
    Export(export::Export),
    /// Give them up: they count as open no more. Without --execute: say which it would be
    #[command(after_help = "Examples:\n  \
                      fleetlog dlq discard --key T-17 --reason 'test robot, its tasks were never real'\n  \
                      fleetlog dlq discard --key T-17 --reason 'test robot, its tasks were never real' --execute\n\n\
                      Who, when, why and which letters is written down on topic `ops`, for ever. The letters stay where they \
                      are until the topic's retention.")]
    Discard(discard::Discard),
}

pub(crate) async fn run(command: &Command, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    match command {
        Command::Stats(stats) => stats::run(stats, config, format).await,
        Command::List(list) => list::run(list, config, format).await,
        Command::Show(show) => show::run(show, config, format).await,
        Command::Export(export) => export::run(export, config).await,
        Command::Discard(discard) => discard::run(discard, config, format).await,
    }
}

/// The group of lines that an import could not map.
const IMPORT_GROUP: &str = "import-vda5050";

/// The tools, on these topics (named as on the cluster) or on fleetlog's own.
fn tools(config: &Config, topics: &[String]) -> anyhow::Result<Tools> {
    let projections = fleetlog_projections::all();
    let groups = projections.iter().map(|projection| wiring::group(config, projection));
    let groups = groups.chain([IMPORT_GROUP.to_owned()]);
    let tools = Tools::new(
        wiring::kafka_settings(config),
        &wiring::catalogue(None)?,
        groups,
        wiring::decoder(config)?,
    );
    Ok(if topics.is_empty() { tools } else { tools.on_topics(topics) })
}

/// Says what the result lacks.
fn tell_gaps(found: &Found) {
    if !found.missing_topics.is_empty() {
        let missing = found.missing_topics.join(", ");
        eprintln!(
            "warning: the cluster has no topic {missing}: nothing is counted there (fleetlog topics plan)"
        );
    }
    if found.unreadable_actions > 0 {
        let count = found.unreadable_actions;
        eprintln!(
            "warning: {count} actions on topic ops cannot be read, of a newer fleetlog? States may be older"
        );
    }
}

/// Without control characters: what somebody sent must not move the cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
