//! `fleetlog dlq stats`

use std::collections::BTreeMap;

use fleetlog_dead_letters::{StateFilter, Stats as Counts};
use serde_json::json;

use super::{index::Source, select::Looked, tell_gaps};
use crate::{
    commands::migrate,
    config::Config,
    exit::Code,
    output::{self, Format},
    when,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    letters: Looked,
    /// Where to read
    #[arg(long, value_enum, default_value_t)]
    source: Source,
}

pub(super) async fn run(stats: &Stats, config: &Config, format: Format) -> anyhow::Result<Code> {
    let (found, states) = super::find(&stats.letters, stats.source, config, Some(StateFilter::Any)).await?;
    let counts = found.stats(states);
    tell_gaps(&found);
    match format {
        Format::Json => {
            let mut all = serde_json::to_value(&counts)?;
            all["oldest_age_ms"] = json!(counts.oldest_ms.map(age_ms));
            output::json(&all)?;
        }
        Format::Table => print(&counts),
    }
    Ok(Code::Done)
}

fn age_ms(at_ms: i64) -> i64 {
    migrate::now().0.saturating_sub(at_ms)
}

/// Counts for people: one table, the largest of each kind first, hours in their order.
pub(super) fn print(counts: &Counts) {
    let states: Vec<String> = counts.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    output::line(&format!("{} dead letters{}", counts.letters, in_brackets(&states.join(", "))));
    if let (Some(oldest), Some(newest)) = (counts.oldest_ms, counts.newest_ms) {
        let time = |ms| format!("{} ({})", output::time(ms), when::ago(age_ms(ms)));
        output::line(&format!("oldest {}\nnewest {}", time(oldest), time(newest)));
        let kinds = [
            ("reason", &counts.reasons),
            ("class", &counts.classes),
            ("type", &counts.types),
            ("group", &counts.groups),
        ];
        let by_kind = kinds.into_iter().flat_map(|(kind, of_kind)| rows(kind, largest_first(of_kind)));
        let by_hour = rows("hour", counts.hours.iter().collect());
        output::table(["by", "", "dead letters"], by_kind.chain(by_hour));
    }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn largest_first(counts: &BTreeMap<String, u64>) -> Vec<(&String, &u64)> {
    let mut all: Vec<_> = counts.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    all
}

fn rows<'a>(kind: &'a str, counts: Vec<(&'a String, &'a u64)>) -> impl Iterator<Item = [String; 3]> + 'a {
    counts.into_iter().map(move |(name, count)| [kind.to_owned(), name.clone(), count.to_string()])
}
