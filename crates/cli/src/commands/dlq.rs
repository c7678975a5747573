//! `fleetlog dlq list|show`: dead letters as they lie on their topics.
//!
//! A crash between publishing and committing can put a dead letter on its topic twice, so they are counted by what
//! failed: (group, origin). The newest of a pair is shown.

use std::collections::BTreeMap;

use fleetlog_kafka::{ClusterError, KafkaSettings, LogReader, OwnedRecord, PartitionRange, ReadError};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    commands::events,
    config::Config,
    exit::{Code, Failure},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List dead letters, the oldest first
    #[command(
        after_help = "Examples:\n  fleetlog dlq list\n  fleetlog dlq list --reason unknown_schema --format json"
    )]
    List(List),
    /// Show one: the event (or its bytes), the headers, the error
    #[command(after_help = "Example: fleetlog dlq show robot-dlq/0/17")]
    Show {
        /// Its place on the dead-letter topic, as `dlq list` prints it: TOPIC/PARTITION/OFFSET
        place: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those of this source topic (stem), such as robot or vda5050
    #[arg(long)]
    topic: Option<String>,
    /// Only this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only those of this group
    #[arg(long)]
    group: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// A dead letter as it is listed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) place: String,
    group: String,
    reason: String,
    pub(crate) origin: String,
    key: String,
    set_aside_at: String,
    error: String,
}

pub(crate) async fn run(command: &Command, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    match command {
        Command::List(list) => run_list(list, config, format).await,
        Command::Show { place } => show(place, config, format).await,
    }
}

/// The dead-letter topics of the catalogue, as physical names.
fn topics(config: &Config, only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let specs = wiring::catalogue(None)?.expand(&config.kafka.topic_prefix, wiring::replication(config));
    let all: Vec<String> =
        specs.into_iter().map(|spec| spec.name).filter(|name| name.ends_with("-dlq")).collect();
    let Some(only) = only else { return Ok(all) };
    let wanted = format!("{}{only}-dlq", config.kafka.topic_prefix);
    if all.contains(&wanted) {
        return Ok(vec![wanted]);
    }
    let message = format!("topic `{only}` has no dead-letter topic");
    Err(Failure::new(Code::Usage, message, format!("dead-letter topics: {}", all.join(", "))).into())
}

async fn run_list(list: &List, config: &Config, format: Format) -> anyhow::Result<Code> {
    let mut found: BTreeMap<(String, String), (i64, Row)> = BTreeMap::new();
    for topic in topics(config, list.topic.as_deref())? {
        for record in read_all(&wiring::kafka_settings(config), &topic).await? {
            let row = row(&config.kafka.topic_prefix, &record);
            let wanted = list.reason.as_ref().is_none_or(|reason| *reason == row.reason)
                && list.group.as_ref().is_none_or(|group| *group == row.group);
            if wanted {
                found.insert((row.group.clone(), row.origin.clone()), (record.timestamp.0, row));
            }
        }
    }
    let mut rows: Vec<(i64, Row)> = found.into_values().collect();
    rows.sort_by(|a, b| (a.0, &a.1.place).cmp(&(b.0, &b.1.place)));
    let (all, rows) = (rows.len(), rows.into_iter().map(|(_, row)| row).take(list.limit).collect::<Vec<_>>());
    match format {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            output::table(["place", "reason", "key", "set aside at", "error"], narrow(&rows));
        }
    }
    if rows.len() < all {
        eprintln!("{} of {all} shown; --limit shows more", rows.len());
    }
    Ok(Code::Done)
}

/// Widest table, in columns of a terminal; group, origin, and what is cut stand in `dlq show` and in JSON.
const COLUMNS_MAX: usize = 120;

/// The rows as cells that fit: the place is whole, since it is typed again; the error takes the room that is left.
fn narrow(rows: &[Row]) -> Vec<[String; 5]> {
    let mut cells: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let at = row.set_aside_at.get(..19).unwrap_or(&row.set_aside_at).replace('T', " ");
            // Many say the reason once more.
            let error = row.error.strip_prefix(&format!("{}: ", row.reason)).unwrap_or(&row.error);
            [row.place.clone(), cut(&row.reason, 19), cut(&row.key, 24), at, error.to_owned()]
        })
        .collect();
    let width = |n: usize| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let heads = ["place", "reason", "key", "set aside at"];
    let taken: usize = heads.iter().enumerate().map(|(n, head)| width(n).max(head.len())).sum();
    // Each cell has a space on both sides, and lines between and around them.
    let left = COLUMNS_MAX.saturating_sub(taken + 5 * 3 + 1).max(12);
    for row in &mut cells {
        row[4] = cut(&row[4], left);
    }
    cells
}

/// At most so many characters on one line; a mark says that there is more.
fn cut(text: &str, characters_max: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= characters_max {
        return line;
    }
    line.chars().take(characters_max - 1).chain(['…']).collect()
}

async fn show(place: &str, config: &Config, format: Format) -> anyhow::Result<Code> {
    let usage = || {
        Failure::new(
            Code::Usage,
            format!("`{place}` is no place of a dead letter"),
            "written TOPIC/PARTITION/OFFSET, as `fleetlog dlq list` prints it",
        )
    };
    let mut parts = place.rsplitn(3, '/');
    let offset: i64 = parts.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
    let partition: i32 = parts.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
    let stem = parts.next().ok_or_else(usage)?;
    let topic = format!("{}{stem}", config.kafka.topic_prefix);
    let range = PartitionRange { partition, from: offset, to: Some(offset + 1) };
    let records = read(&wiring::kafka_settings(config), &topic, vec![range]).await?;
    let Some(record) = records.into_iter().next() else {
        return Err(Failure::new(
            Code::Found,
            format!("there is no dead letter at {place}"),
            "fleetlog dlq list",
        )
        .into());
    };
    let decoder = wiring::decoder(config)?;
    let (event_type, event) = events::describe(&decoder, &record).await?;
    let value = record.value.as_deref();
    let headers: Map<String, Value> = record
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), shown(&name.to_string(), value.as_deref())))
        .collect();
    let row = row(&config.kafka.topic_prefix, &record);
    let all = json!({
        "place": row.place, "group": row.group, "reason": row.reason, "origin": row.origin, "key": row.key,
        "set_aside_at": row.set_aside_at, "error": row.error, "type": event_type, "event": event,
        "value_bytes": value.map(<[u8]>::len), "headers": headers,
    });
    match format {
        Format::Json => output::json(&all)?,
        Format::Table => {
            for name in ["place", "group", "reason", "origin", "key", "set_aside_at", "error"] {
                output::line(&format!("{name:<13} {}", all[name].as_str().unwrap_or_default()));
            }
            output::table(
                ["header", "value"],
                headers.iter().map(|(name, value)| [name.clone(), plain(value)]),
            );
            output::line(&format!("event {}", serde_json::to_string_pretty(&event)?));
            if event.get("undecodable").is_some() {
                output::line(&hex_dump(value.unwrap_or_default()));
            }
        }
    }
    Ok(Code::Done)
}

async fn read_all(settings: &KafkaSettings, topic: &str) -> anyhow::Result<Vec<OwnedRecord>> {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    let opened = move || collect(LogReader::open_all(&settings, &topic));
    match tokio::task::spawn_blocking(opened).await? {
        // A topic that was never made holds nothing.
        Err(ReadError::Cluster(ClusterError::UnknownTopic(_))) => Ok(Vec::new()),
        other => Ok(other?),
    }
}

async fn read(
    settings: &KafkaSettings,
    topic: &str,
    ranges: Vec<PartitionRange>,
) -> anyhow::Result<Vec<OwnedRecord>> {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    let opened = move || collect(LogReader::open(&settings, &topic, &ranges));
    match tokio::task::spawn_blocking(opened).await? {
        // Gone by retention, or never there: the caller says so with the place as it was typed.
        Err(ReadError::OffsetOutOfRange { .. } | ReadError::PastEnd { .. }) => Ok(Vec::new()),
        other => Ok(other?),
    }
}

fn collect(reader: Result<LogReader, ReadError>) -> Result<Vec<OwnedRecord>, ReadError> {
    let mut records = Vec::new();
    reader?.for_each(|record| {
        records.push(record.to_owned_record());
        Ok::<_, ReadError>(())
    })?;
    Ok(records)
}

fn header(record: &OwnedRecord, name: &str) -> String {
    let value = record.headers.iter().rev().find(|(n, _)| *n == name).and_then(|(_, value)| value.as_deref());
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// Reads the headers that our own dead letters carry, and where they are missing those of Kafka Connect and Spring.
pub(crate) fn row(prefix: &str, record: &OwnedRecord) -> Row {
    let first = |names: &[&str]| {
        names.iter().map(|name| header(record, name)).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let topic = first(&["original-topic", "__connect.errors.topic", "kafka_dlt-original-topic"]);
    let (partition, offset) = (first(&["__connect.errors.partition"]), first(&["__connect.errors.offset"]));
    let origin = if partition.is_empty() {
        let (file, line) = (first(&["fleetlog-import-file"]), first(&["fleetlog-import-line"]));
        if file.is_empty() {
            format!("{}/{}/{}", record.topic, record.partition, record.offset)
        } else {
            format!("{file}:{line}")
        }
    } else {
        format!("{topic}/{partition}/{offset}")
    };
    let stem = record.topic.strip_prefix(prefix).unwrap_or(&record.topic);
    Row {
        place: format!("{stem}/{}/{}", record.partition, record.offset),
        group: first(&[
            "fleetlog-dlq-group",
            "kafka_dlt-original-consumer-group",
            "__connect.errors.connector.name",
        ]),
        reason: first(&[
            "fleetlog-dlq-reason",
            "__connect.errors.exception.class.name",
            "kafka_dlt-exception-fqcn",
        ]),
        origin,
        key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
        set_aside_at: output::time(record.timestamp.0),
        error: first(&["error-message", "__connect.errors.exception.message", "kafka_dlt-exception-message"]),
    }
}

/// A header's value: Spring's numbers are binary, big-endian; others are text, or hex where they are none.
pub(crate) fn shown(name: &str, value: Option<&[u8]>) -> Value {
    let Some(value) = value else { return Value::Null };
    if name.starts_with("kafka_dlt-original-")
        && !name.ends_with("topic")
        && !name.ends_with("group")
        && !name.ends_with("type")
    {
        if let Ok(bytes) = <[u8; 4]>::try_from(value) {
            return i32::from_be_bytes(bytes).into();
        }
        if let Ok(bytes) = <[u8; 8]>::try_from(value) {
            return i64::from_be_bytes(bytes).into();
        }
    }
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_fits_a_terminal() {
        let row = |n: usize| Row {
            place: format!("telemetry-dlq/2/{n}"),
            group: "g".repeat(n),
            reason: "wrong_partition".into(),
            origin: format!("prod-telemetry/11/{}", 10_u64.pow(9) + n as u64),
            key: "swerk1.uNordFTS%2F0001".repeat(n),
            set_aside_at: output::time(1_795_251_856_866),
            error: "wrong_partition: it is\nin 1 ä".repeat(n),
        };
        let cells = narrow(&[row(1), row(30)]);
        let width: usize =
            (0..5).map(|n| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).sum();
        assert!(width + 16 <= COLUMNS_MAX, "{cells:?}");
        assert_eq!(cells[1][0], "telemetry-dlq/2/30");
        assert_eq!(cells[0][3], "2026-11-21 09:04:16");
        assert!(cells[1][4].starts_with("it is in 1 ä") && cells[1][4].ends_with('…'), "{cells:?}");
    }
}
