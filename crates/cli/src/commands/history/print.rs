//! Rows of history as people and machines read them, one after the other.

use serde_json::Value;

use super::query::Table;
use crate::output::{self, OutputFormat, Stream};

/// Rows under one head: a table's columns are as wide as its rows need, so they are laid out page by page.
const PAGE_ROWS: usize = 1000;

/// Prints rows as they come.
pub(super) enum Printer {
    Json(Stream),
    Csv { writer: Box<csv::Writer<Stream>>, columns: Vec<&'static str>, head_is_written: bool },
    Table { page: Vec<[String; 5]>, head: [&'static str; 5] },
}

impl Printer {
    pub(super) fn new(format: OutputFormat, table: Table) -> Self {
        let kind = if table == Table::Telemetry { "channel" } else { "event_type" };
        match format {
            OutputFormat::Json => Self::Json(output::stream()),
            OutputFormat::Csv => {
                let columns = table.columns().collect();
                let writer = Box::new(csv::Writer::from_writer(output::stream()));
                Self::Csv { writer, columns, head_is_written: false }
            }
            OutputFormat::Table => Self::Table {
                page: Vec::new(),
                head: ["recorded_at", "occurred_at", kind, "position", "what"],
            },
        }
    }

    /// Takes a row as JSON.
    pub(super) fn row(&mut self, json: &str) -> anyhow::Result<()> {
        match self {
            Self::Json(stream) => output::wrote(stream.line(json)),
            Self::Csv { writer, columns, head_is_written } => {
                if !std::mem::replace(head_is_written, true) {
                    output::wrote_csv(writer.write_record(columns.iter()));
                }
                let row: Value = serde_json::from_str(json)?;
                output::wrote_csv(writer.write_record(columns.iter().map(|column| text(&row, column))));
            }
            Self::Table { page, head } => {
                let row: Value = serde_json::from_str(json)?;
                let position = format!("{}:{}", row["log_partition"], row["log_offset"]);
                page.push([
                    text(&row, head[0]),
                    text(&row, head[1]),
                    text(&row, head[2]),
                    position,
                    what(&row),
                ]);
                if page.len() == PAGE_ROWS {
                    output::table(*head, page.drain(..));
                }
            }
        }
        Ok(())
    }

    /// What is still held back.
    pub(super) fn finish(self) {
        match self {
            Self::Json(mut stream) => output::wrote(std::io::Write::flush(&mut stream)),
            Self::Csv { mut writer, .. } => output::wrote(writer.flush()),
            Self::Table { page, head } if !page.is_empty() => output::table(head, page),
            Self::Table { .. } => {}
        }
    }
}

/// A column as text; empty where it is null.
pub(crate) fn text(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The facts of a row in one line: what is neither null nor where, when and who.
pub(crate) fn what(row: &Value) -> String {
    const HEAD: [&str; 15] = [
        "recorded_at",
        "occurred_at",
        "site_uid",
        "unit_uid",
        "event_type",
        "channel",
        "log_partition",
        "log_offset",
        "event_id",
        "sequence",
        "sequence_scope",
        "source",
        "correlation_id",
        "causation_id",
        "payload",
    ];
    let facts = match &row["payload"] {
        Value::Object(payload) => payload,
        _ => match row {
            Value::Object(columns) => columns,
            _ => return String::new(),
        },
    };
    let facts = facts.iter().filter(|(name, value)| !value.is_null() && !HEAD.contains(&name.as_str()));
    facts
        .map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"')))
        .collect::<Vec<_>>()
        .join(" ")
}
