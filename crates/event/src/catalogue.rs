//! The topic catalogue: what `topics/*.toml` says, checked, and as the topics a cluster has to have.

mod parse;

use std::{collections::BTreeMap, fmt};

pub use parse::{CatalogueError, Problem};

/// What a topic's record keys are. Partitions of a keyed topic are fixed: order per key hangs on their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The unit, `s{site}.u{unit}`.
    Unit,
    /// The task id.
    Task,
    /// A schema fingerprint, 8 bytes, little-endian.
    Fingerprint,
    /// The digest of an imported file.
    File,
    /// The consumer group.
    Group,
    /// No order: partitions may be added.
    None,
}

/// How the broker tidies a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// By retention.
    Delete,
    /// The last record of each key stays.
    Compact,
}

/// Which time a record's timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// Set by the producer.
    CreateTime,
    /// Set by the broker.
    LogAppendTime,
}

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// For ever.
    Forever,
    /// That many milliseconds.
    Millis(i64),
}

impl Retention {
    /// Orders by how long.
    fn sort_key(&self) -> i64 {
        match self {
            Self::Forever => i64::MAX,
            Self::Millis(ms) => *ms,
        }
    }

    /// So many times as long.
    fn times(self, times: i64) -> Self {
        match self {
            Self::Forever => Self::Forever,
            Self::Millis(ms) => Self::Millis(ms.saturating_mul(times)),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, i64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        match self {
            Self::Forever => f.write_str("forever"),
            Self::Millis(ms) => match UNITS.iter().find(|(_, unit_ms)| ms % unit_ms == 0) {
                Some((unit, unit_ms)) => write!(f, "{}{unit}", ms / unit_ms),
                None => write!(f, "{ms}ms"),
            },
        }
    }
}

/// The topic `<name>-dlq` of a source topic: what its projections set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// How many partitions.
    pub partitions: i32,
    /// How long a dead letter is kept, from being set aside.
    pub retention: Retention,
    /// Largest record batch the broker takes, in bytes: a source record and its headers.
    pub message_bytes_max: i32,
}

/// One topic, as `topics/<stem>.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The name without the deployment's prefix.
    pub stem: String,
    /// What the keys are.
    pub key: KeyKind,
    /// How many partitions.
    pub partitions: i32,
    /// How many brokers hold each partition.
    pub replication: i32,
    /// How many of them have to acknowledge.
    pub min_insync_replicas: i32,
    /// How long records are kept.
    pub retention: Retention,
    /// How the broker tidies.
    pub cleanup: Cleanup,
    /// Which time the timestamps are.
    pub timestamp_type: TimestampType,
    /// Largest record batch the broker takes, in bytes.
    pub message_bytes_max: i32,
    /// How many offsets back a duplicate is looked for (N of the duplicate rule); source topics only.
    pub dedup_window_offsets: Option<i64>,
    /// Full names of the events on it; empty for internal topics.
    pub events: Vec<String>,
    /// The dead-letter topic; source topics have one.
    pub dead_letters: Option<DeadLetters>,
}

impl Topic {
    /// Whether events lie on it (internal topics carry none).
    #[must_use]
    pub fn is_source(&self) -> bool {
        !self.events.is_empty()
    }

    /// The inbox of a consumer group that reads this topic, under that physical name: commands to its lanes. A lane follows
    /// the partition of its own number, so there are as many as the topic has. None where nothing can be set aside.
    #[must_use]
    pub fn inbox(&self, name: String, replication: Option<i32>) -> Option<TopicSpec> {
        let dead = self.dead_letters.as_ref()?;
        let replicas = replication.unwrap_or(self.replication);
        Some(TopicSpec {
            name,
            stem: self.stem.clone(),
            partitions: self.partitions,
            replication: replicas,
            configs: configs(
                Cleanup::Delete,
                dead.retention,
                TimestampType::LogAppendTime,
                self.min_insync_replicas.min(replicas),
                dead.message_bytes_max.saturating_add(COMMAND_BYTES),
            ),
            keyed: true,
        })
    }
}

/// What the topics on which a handler's events wait are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// The handler's consumer group, physical name.
    pub group: &'a str,
    /// The delay of each retry tier, in milliseconds.
    pub tiers_ms: &'a [u64],
    /// Overrides the files' replication.
    pub replication: Option<i32>,
}

impl Waiting<'_> {
    /// The topics: a tier for each delay, the shortest first, and what is held. Of the topics that the handler reads each is to
    /// have room there: as many partitions as the one with most (order per key hangs on them), records as large as its dead
    /// letters, kept as long as they are. None where nothing can be set aside.
    #[must_use]
    pub fn topics(&self, sources: &[&Topic]) -> Option<Vec<TopicSpec>> {
        let widest = sources.iter().max_by_key(|topic| topic.partitions)?;
        let dead = sources.iter().map(|topic| topic.dead_letters.as_ref()).collect::<Option<Vec<_>>>()?;
        let bytes_max = dead.iter().map(|dead| dead.message_bytes_max).max()?;
        let retention = dead.iter().map(|dead| dead.retention).max_by_key(Retention::sort_key)?;
        let replicas = self.replication.unwrap_or(widest.replication);
        let tiers = self.tiers_ms.iter().map(|delay_ms| retry_name(self.group, *delay_ms));
        let spec = |name: String| TopicSpec {
            name,
            stem: self.group.to_owned(),
            partitions: widest.partitions,
            replication: replicas,
            configs: configs(
                Cleanup::Delete,
                retention,
                // A record is due so long after it was appended.
                TimestampType::LogAppendTime,
                widest.min_insync_replicas.min(replicas),
                bytes_max,
            ),
            keyed: true,
        };
        Some(tiers.chain([held_name(self.group)]).map(spec).collect())
    }
}

/// What a command may have beside the dead letter that it carries, in bytes.
const COMMAND_BYTES: i32 = 65_536;

/// How many times as long as a dead letter a parked one is kept: it waits for a release, not for a person on call.
const PARKED_RETENTIONS: i64 = 3;

/// A topic as the cluster has to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The physical name, prefix included.
    pub name: String,
    /// The stem it comes from (`task` for `prod-task`, for `prod-task-dlq` and for every inbox of it).
    pub stem: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many brokers hold each partition.
    pub replication: i32,
    /// Topic configuration by Kafka's names.
    pub configs: BTreeMap<&'static str, String>,
    /// Whether something hangs on the number of partitions, which then must never change: order per key, or which lane a
    /// command reaches.
    pub keyed: bool,
}

/// All topics of fleetlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// In the order of their files.
    pub topics: Vec<Topic>,
}

const FILES: [(&str, &str); 7] = [
    ("robot.toml", include_str!("../../../topics/robot.toml")),
    ("telemetry.toml", include_str!("../../../topics/telemetry.toml")),
    ("task.toml", include_str!("../../../topics/task.toml")),
    ("ops.toml", include_str!("../../../topics/ops.toml")),
    ("schemas.toml", include_str!("../../../topics/schemas.toml")),
    ("import-places.toml", include_str!("../../../topics/import-places.toml")),
    ("vda5050-dlq.toml", include_str!("../../../topics/vda5050-dlq.toml")),
];

impl Catalogue {
    /// The catalogue of the files under `topics/`, compiled in.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "the files are compiled in and tested")]
    pub fn builtin() -> Self {
        // Unwrap safety: constant input, parsed by a test of this crate.
        Self::parse(&FILES).unwrap()
    }

    /// Reads topic files, given as (file name, text); the file name is the stem.
    ///
    /// # Errors
    /// Every problem of every file at once, each with file, field and what is expected.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, CatalogueError> {
        parse::catalogue(files)
    }

    /// The topic of that stem.
    #[must_use]
    pub fn topic(&self, stem: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.stem == stem)
    }

    /// How far back a duplicate is looked for on the topic of that name (without prefix): 0 on those that are no source, dead
    /// letters among them. None if the catalogue does not have it.
    #[must_use]
    pub fn dedup_window_offsets(&self, name: &str) -> Option<i64> {
        if let Some(topic) = self.topic(name) {
            return Some(topic.dedup_window_offsets.unwrap_or(0));
        }
        self.dead_letter_topics().any(|known| known == name).then_some(0)
    }

    /// The names (without prefix) of all topics that dead letters lie on: those of the source topics, and that of the import.
    pub fn dead_letter_topics(&self) -> impl Iterator<Item = String> {
        self.expand("", None).into_iter().map(|spec| spec.name).filter(|name| is_of_dead_letters(name))
    }

    /// The topics that events lie on.
    pub fn sources(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(|topic| topic.is_source())
    }

    /// The topics a cluster has to have, dead letters and parked ones included; inboxes belong to groups ([`Topic::inbox`]).
    /// `replication` overrides the files' (a cluster of one
    /// broker can only have 1); fewer replicas than `min_insync_replicas` lower that too.
    #[must_use]
    pub fn expand(&self, prefix: &str, replication: Option<i32>) -> Vec<TopicSpec> {
        let mut specs = Vec::new();
        for topic in &self.topics {
            let name = physical_name(prefix, &topic.stem);
            let replicas = replication.unwrap_or(topic.replication);
            let min_insync = topic.min_insync_replicas.min(replicas);
            specs.push(TopicSpec {
                stem: topic.stem.clone(),
                partitions: topic.partitions,
                replication: replicas,
                configs: configs(
                    topic.cleanup,
                    topic.retention,
                    topic.timestamp_type,
                    min_insync,
                    topic.message_bytes_max,
                ),
                keyed: topic.key != KeyKind::None,
                name: name.clone(),
            });
            if let Some(dead) = &topic.dead_letters {
                specs.push(TopicSpec {
                    name: dead_letter_name(&name),
                    stem: topic.stem.clone(),
                    partitions: dead.partitions,
                    replication: replicas,
                    configs: configs(
                        Cleanup::Delete,
                        dead.retention,
                        TimestampType::LogAppendTime,
                        min_insync,
                        dead.message_bytes_max,
                    ),
                    keyed: false,
                });
                specs.push(TopicSpec {
                    name: parking_name(&name),
                    stem: topic.stem.clone(),
                    partitions: 1,
                    replication: replicas,
                    configs: configs(
                        Cleanup::Delete,
                        dead.retention.times(PARKED_RETENTIONS),
                        TimestampType::LogAppendTime,
                        min_insync,
                        dead.message_bytes_max,
                    ),
                    keyed: false,
                });
            }
        }
        specs
    }
}

/// The name of a topic on the cluster: `prod-` and `task` make `prod-task`.
#[must_use]
pub fn physical_name(prefix: &str, stem: &str) -> String {
    format!("{prefix}{stem}")
}

/// The name of a topic's dead-letter topic: `prod-task-dlq`.
#[must_use]
pub fn dead_letter_name(physical: &str) -> String {
    format!("{physical}-dlq")
}

/// The name of the topic where dead letters lie that were redriven as often as they may be: `prod-task-parking`.
#[must_use]
pub fn parking_name(physical: &str) -> String {
    format!("{physical}{PARKING}")
}

/// The name of a retry tier of a consumer group: `prod-fleetlog-webhook-erp-retry-2s`.
#[must_use]
pub fn retry_name(group: &str, delay_ms: u64) -> String {
    if delay_ms.is_multiple_of(1000) {
        format!("{group}-retry-{}s", delay_ms / 1000)
    } else {
        format!("{group}-retry-{delay_ms}ms")
    }
}

/// The name of the topic where events of a consumer group wait for an endpoint that is down: `prod-fleetlog-webhook-erp-held`.
#[must_use]
pub fn held_name(group: &str) -> String {
    format!("{group}-held")
}

/// How the names of topics end where dead letters lie that were redriven as often as they may be.
pub const PARKING: &str = "-parking";

/// Whether dead letters lie on a topic of that name, parked ones included.
#[must_use]
pub fn is_of_dead_letters(name: &str) -> bool {
    name.ends_with("-dlq") || name.ends_with(PARKING)
}

fn configs(
    cleanup: Cleanup,
    retention: Retention,
    timestamp_type: TimestampType,
    min_insync_replicas: i32,
    message_bytes_max: i32,
) -> BTreeMap<&'static str, String> {
    let cleanup = match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
    };
    let retention_ms = match retention {
        Retention::Forever => -1,
        Retention::Millis(ms) => ms,
    };
    let timestamp_type = match timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    BTreeMap::from([
        ("cleanup.policy", cleanup.to_owned()),
        ("retention.ms", retention_ms.to_string()),
        // A cluster-wide limit by size would drop events that the file promises to keep.
        ("retention.bytes", "-1".to_owned()),
        ("message.timestamp.type", timestamp_type.to_owned()),
        ("min.insync.replicas", min_insync_replicas.to_string()),
        ("max.message.bytes", message_bytes_max.to_string()),
        // An unclean leader loses acknowledged events.
        ("unclean.leader.election.enable", "false".to_owned()),
    ])
}

#[cfg(test)]
#[path = "catalogue/tests.rs"]
mod tests;
