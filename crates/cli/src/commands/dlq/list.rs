//! `fleetlog dlq list`

use fleetlog_dead_letters::{Letter, State};
use serde::Serialize;

use super::{index::Source, one_line, select::Looked, tell_gaps};
use crate::{
    config::Config,
    exit::Code,
    output::{self, Format},
};

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    letters: Looked,
    /// Where to read
    #[arg(long, value_enum, default_value_t)]
    source: Source,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// A letter with what became of it, as one object.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    pub(super) letter: &'a Letter,
    #[serde(flatten)]
    pub(super) state: &'a State,
}

pub(super) async fn run(list: &List, config: &Config, format: Format) -> anyhow::Result<Code> {
    let (found, _) = super::find(&list.letters, list.source, config, None).await?;
    tell_gaps(&found);
    let rows: Vec<Row<'_>> =
        found.letters.iter().take(list.limit).map(|(letter, state)| Row { letter, state }).collect();
    match format {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            output::table(["place", "reason", "key", "set aside at", "error"], narrow(&rows));
        }
    }
    if rows.len() < found.matched {
        eprintln!("{} of {} shown; --limit shows more", rows.len(), found.matched);
    }
    if found.matched == 0 && found.in_other_states > 0 {
        eprintln!("{} in other states; --state any shows them", found.in_other_states);
    }
    Ok(Code::Done)
}

/// Widest table, in columns of a terminal; group, origin, and what is cut stand in `dlq show` and in JSON.
const COLUMNS_MAX: usize = 120;

/// The rows as cells that fit: the place is whole, since it is typed again; the error takes the room that is left.
fn narrow(rows: &[Row<'_>]) -> Vec<[String; 5]> {
    let mut cells: Vec<[String; 5]> = rows
        .iter()
        .map(|Row { letter, state }| {
            let at = output::time(letter.set_aside_at.0);
            let at = at.get(..19).unwrap_or(&at).replace('T', " ");
            let reason = letter.reason.rsplit('.').next().unwrap_or(&letter.reason);
            [
                letter.place.to_string(),
                cut(reason, 19),
                cut(&letter.key_text(), 24),
                at,
                error_text(letter, state),
            ]
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

/// What was wrong, or why nobody minds any more.
fn error_text(letter: &Letter, state: &State) -> String {
    if let Some(action) = state.action() {
        return format!("{} by {}: {}", state.name(), action.by, action.why);
    }
    // Many say the reason once more.
    letter.detail.strip_prefix(&format!("{}: ", letter.reason)).unwrap_or(&letter.detail).to_owned()
}

/// At most so many characters on one line; a mark says that there is more.
fn cut(text: &str, characters_max: usize) -> String {
    let line = one_line(text);
    if line.chars().count() <= characters_max {
        return line;
    }
    line.chars().take(characters_max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetlog_dead_letters::ReadLetter;
    use fleetlog_event::TimestampMs;
    use fleetlog_kafka::OwnedRecord;

    use super::*;

    fn letter(n: usize) -> Letter {
        let text = |name: &str, value: String| (name.into(), Some(Bytes::from(value)));
        let record = OwnedRecord {
            topic: "prod-telemetry-dlq".into(),
            partition: 2,
            offset: n as i64,
            timestamp: TimestampMs(1_795_251_856_866),
            key: Some(Bytes::from("swerk1.uNordFTS%2F0001".repeat(n))),
            value: None,
            headers: vec![
                text("fleetlog-dlq-reason", "wrong_partition".to_owned()),
                text("error-message", "wrong_partition: it is\nin 1 ä".repeat(n)),
            ],
        };
        Letter::read(&record, "telemetry-dlq")
    }

    #[test]
    fn a_list_fits_a_terminal() {
        let letters = [letter(1), letter(30)];
        let rows: Vec<Row<'_>> = letters.iter().map(|letter| Row { letter, state: &State::Open }).collect();
        let cells = narrow(&rows);
        let width: usize =
            (0..5).map(|n| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).sum();
        assert!(width + 16 <= COLUMNS_MAX, "{cells:?}");
        assert_eq!(cells[1][0], "telemetry-dlq/2/30");
        assert_eq!(cells[0][3], "2026-11-21 09:04:16");
        assert!(cells[1][4].starts_with("it is in 1 ä") && cells[1][4].ends_with('…'), "{cells:?}");
    }
}
