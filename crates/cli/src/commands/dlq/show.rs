//! `fleetlog dlq show`

use fleetlog_dead_letters::{Action, Place, Shown, readable};
use fleetlog_event::TimestampMs;
use serde_json::{Value, json};

use super::{failure::failure, list::Row, one_line, tools};
use crate::{
    commands::events,
    config::Config,
    exit::Code,
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Its place on the dead-letter topic, as `dlq list` prints it: TOPIC/PARTITION/OFFSET
    place: String,
}

pub(super) async fn run(show: &Show, config: &Config, format: Format) -> anyhow::Result<Code> {
    let place: Place =
        show.place.parse().map_err(|error| failure(fleetlog_dead_letters::ToolError::NoPlace(error)))?;
    let shown = tools(config, &[])?.show(&place).await.map_err(failure)?;
    let Shown { record, letter, state } = &shown;
    let decoder = wiring::decoder(config)?;
    let (event_type, event) = events::describe(&decoder, record).await?;
    let value = record.value.as_deref();
    // A list, not an object: names repeat, and their order is the record's.
    let headers: Vec<(String, Value)> = record
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), readable(name, value.as_deref())))
        .collect();
    match format {
        Format::Json => {
            let mut all = serde_json::to_value(Row { letter, state })?;
            all["type"] = json!(event_type.or_else(|| letter.event_type.clone()));
            all["event"] = event;
            all["headers"] =
                headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            if all["event"].get("undecodable").is_some() {
                all["hex"] = value.map(hex_dump).into();
            }
            output::json(&all)?;
        }
        Format::Table => {
            print_facts(&shown, event_type.as_deref());
            output::table(
                ["header", "value"],
                headers.into_iter().map(|(name, value)| [name, plain(&value)]),
            );
            output::line(&format!("event {}", serde_json::to_string_pretty(&event)?));
            if event.get("undecodable").is_some() {
                output::line(&hex_dump(value.unwrap_or_default()));
            }
        }
    }
    Ok(Code::Done)
}

fn print_facts(Shown { letter, state, .. }: &Shown, event_type: Option<&str>) {
    let length =
        letter.value_bytes.map_or_else(|| "none (a tombstone)".to_owned(), |bytes| format!("{bytes} bytes"));
    let became = match state.action() {
        Some(Action { action_id, at, by, why }) => {
            format!("{} at {at} by {by}: {why} (action {action_id})", state.name())
        }
        None => state.name().to_owned(),
    };
    let event_type = event_type.or(letter.event_type.as_deref()).unwrap_or("unknown");
    let attempts = letter.attempts.map_or_else(|| "unknown".to_owned(), |attempts| attempts.to_string());
    let told = |time: Option<TimestampMs>| time.map(|time| output::time(time.0));
    let facts = [
        ("place", letter.place.to_string()),
        ("state", became),
        ("group", letter.group.clone()),
        ("reason", letter.reason.clone()),
        ("class", letter.class.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("error", letter.detail.clone()),
        ("origin", letter.origin.to_string()),
        ("key", letter.key_text()),
        ("type", event_type.to_owned()),
        ("set aside at", output::time(letter.set_aside_at.0)),
        ("recorded at", letter.recorded_at.map_or_else(|| "unknown".to_owned(), |time| output::time(time.0))),
        ("attempts", attempts),
        ("sent back", format!("{} times", letter.replay_count)),
        ("value", length),
    ];
    // Of handlers, which try again.
    let failures =
        [("first failure", told(letter.first_failure)), ("last failure", told(letter.last_failure))];
    let failures = failures.into_iter().filter_map(|(name, time)| Some((name, time?)));
    for (name, value) in facts.into_iter().chain(failures) {
        output::line(&format!("{name:<13} {}", one_line(&value)));
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => one_line(text),
        other => other.to_string(),
    }
}

/// Most bytes of a payload that are shown.
const HEX_BYTES_MAX: usize = 512;

/// Offset, sixteen bytes in hex, and as text where they are printable.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (n, chunk) in bytes[..bytes.len().min(HEX_BYTES_MAX)].chunks(16).enumerate() {
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String =
            chunk.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        out.push_str(&format!("{:08x}  {hex:<48} {text}\n", n * 16));
    }
    if bytes.len() > HEX_BYTES_MAX {
        out.push_str(&format!("… {} bytes in all\n", bytes.len()));
    }
    out.trim_end().to_owned()
}
