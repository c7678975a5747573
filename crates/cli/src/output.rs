//! What commands print: tables for people, JSON for machines.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::exit::{Code, Failure};

/// How a command prints its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// One JSON value, or JSON lines for a stream.
    Json,
}

/// What `--format` takes. Most commands print a table or JSON; rows of history can be CSV as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns, for people.
    #[default]
    Table,
    /// One JSON value, or JSON lines for a stream.
    Json,
    /// Comma-separated values with a head (RFC 4180); `history` only.
    Csv,
}

impl OutputFormat {
    /// For a command that prints no CSV.
    ///
    /// # Errors
    /// When CSV is asked for.
    pub(crate) fn without_csv(self) -> Result<Format, Failure> {
        match self {
            Self::Table => Ok(Format::Table),
            Self::Json => Ok(Format::Json),
            Self::Csv => Err(Failure::new(
                Code::Usage,
                "--format csv: only `fleetlog history` prints CSV",
                "--format json, and a tool such as jq",
            )),
        }
    }
}

/// Stdout for many lines: written in large pieces.
pub(crate) struct Stream(std::io::BufWriter<std::io::Stdout>);

/// Stdout for many lines.
pub(crate) fn stream() -> Stream {
    Stream(std::io::BufWriter::with_capacity(1 << 16, std::io::stdout()))
}

impl Stream {
    /// A line.
    pub(crate) fn line(&mut self, text: &str) -> std::io::Result<()> {
        self.write_all(text.as_bytes())?;
        self.write_all(b"\n")
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// What became of writing CSV to stdout: see [`wrote`].
pub(crate) fn wrote_csv(result: csv::Result<()>) {
    wrote(result.map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => std::io::Error::other(format!("{other:?}")),
    }));
}

/// What became of writing to stdout. A closed pipe (`| head`) ends the program quietly, as other tools do.
pub(crate) fn wrote(result: std::io::Result<()>) {
    if let Err(error) = result {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: cannot write to stdout: {error}");
        std::process::exit(4);
    }
}

/// Prints a line to stdout.
pub(crate) fn line(text: &str) {
    wrote(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows under a head.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    line(&table.to_string());
}

/// Milliseconds since 1970 as `2026-11-21T09:04:15.866Z`.
pub(crate) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}
