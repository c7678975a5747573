//! Selectors as people type them.

use fleetlog_dead_letters::{Place, Selector, StateFilter, Tools};
use fleetlog_event::TimestampMs;

use super::failure::failure;
use crate::{commands::migrate, config::Config, when::When, wiring};

/// Which dead letters. Several values (separated by commas) mean any of them, several options all of them.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which letters")]
pub(super) struct Select {
    /// Only those of these source topics (stems), such as robot or vda5050
    #[arg(long, value_delimiter = ',')]
    topic: Vec<String>,
    /// Only those of this partition of the source topic
    #[arg(long)]
    partition: Option<i32>,
    /// Only those from this offset of the source topic on
    #[arg(long)]
    offset_from: Option<i64>,
    /// Only those up to this offset of the source topic, itself included
    #[arg(long)]
    offset_to: Option<i64>,
    /// Only these classes: reject, refused, or a stage of Kafka Connect
    #[arg(long, value_delimiter = ',')]
    class: Vec<String>,
    /// Only these event types, such as task.Created or Connected
    #[arg(long = "type", alias = "event-type", value_name = "EVENT", value_delimiter = ',')]
    event_type: Vec<String>,
    /// Only those that these groups did not take: consumer groups, or projections
    #[arg(long, value_delimiter = ',')]
    group: Vec<String>,
    /// Only those with these keys: a unit as s{site}.u{unit}, or a task's id
    #[arg(long, value_delimiter = ',')]
    key: Vec<String>,
    /// Only those of these sites
    #[arg(long, value_delimiter = ',')]
    site: Vec<String>,
    /// Set aside at or after this time: RFC 3339, a date, or how long ago (15m, 2h, 3d)
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Set aside before this time
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Only the letters at these places, as `dlq list` prints them: TOPIC/PARTITION/OFFSET
    #[arg(long, value_name = "PLACE", value_delimiter = ',')]
    id: Vec<String>,
    /// Read these dead-letter topics, named as on the cluster, instead of fleetlog's own
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) dlq_topic: Vec<String>,
}

/// Which letters by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum StateArg {
    /// Those that wait for somebody
    #[default]
    Open,
    /// Those that were given up
    Discarded,
    /// Those that were sent back, and taken
    Redriven,
    /// Those that were sent back and rejected as often as they may be
    Parked,
    /// All
    Any,
}

impl From<StateArg> for StateFilter {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Open => Self::Open,
            StateArg::Discarded => Self::Discarded,
            StateArg::Redriven => Self::Redriven,
            StateArg::Parked => Self::Parked,
            StateArg::Any => Self::Any,
        }
    }
}

impl Select {
    /// The selector, checked.
    pub(super) fn selector(
        &self,
        config: &Config,
        reasons: &[String],
        max: Option<usize>,
    ) -> anyhow::Result<Selector> {
        let TimestampMs(now_ms) = migrate::now();
        let time = |when: Option<When>| when.map(|when| TimestampMs(when.at(now_ms).as_millisecond()));
        let ids = self.id.iter().map(|text| text.parse::<Place>()).collect::<Result<_, _>>();
        let selector = Selector {
            topics: self.topic.clone(),
            partition: self.partition,
            offset_from: self.offset_from,
            offset_to: self.offset_to,
            reasons: reasons.to_vec(),
            classes: self.class.clone(),
            event_types: self.event_type.clone(),
            groups: self.group.iter().map(|group| group_of(config, group)).collect(),
            keys: self.key.clone(),
            sites: self.site.clone(),
            since: time(self.since),
            until: time(self.until),
            ids: ids.map_err(|error| failure(error.into()))?,
            max,
        };
        selector.check().map_err(|error| failure(error.into()))?;
        Ok(selector)
    }
}

/// Which dead letters, for the commands that look at them without changing anything.
#[derive(Debug, clap::Args)]
pub(super) struct Looked {
    #[command(flatten)]
    select: Box<Select>,
    /// Only these reasons, such as unknown_schema
    #[arg(long, value_delimiter = ',')]
    reason: Vec<String>,
    /// By what became of them
    #[arg(long, value_enum, default_value_t)]
    state: StateArg,
}

impl Looked {
    /// Whether topics other than fleetlog's own are named.
    pub(super) fn is_of_other_topics(&self) -> bool {
        !self.select.dlq_topic.is_empty()
    }

    /// The tools on the topics asked for, the selector, checked, and the states.
    pub(super) fn at(
        &self,
        config: &Config,
        max: Option<usize>,
    ) -> anyhow::Result<(Tools, Selector, StateFilter)> {
        let selector = self.select.selector(config, &self.reason, max)?;
        Ok((super::tools(config, &self.select.dlq_topic)?, selector, self.state.into()))
    }
}

/// A projection's group, where a projection is named.
fn group_of(config: &Config, name: &str) -> String {
    let projection = fleetlog_projections::all().into_iter().find(|projection| projection.id == name);
    projection.map_or_else(|| name.to_owned(), |projection| wiring::group(config, &projection))
}
