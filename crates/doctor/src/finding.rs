//! A finding, the list of all checks, and a report of findings.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A guarantee does not hold, or something does not work.
    Error,
    /// It works, but not as well as it should, or not after the next fault.
    Warning,
    /// Worth knowing.
    Info,
    /// As it should be.
    Ok,
}

impl Severity {
    /// All, worst first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warning, Self::Info, Self::Ok];

    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Ok => "ok",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Brokers: version, defaults, limits.
    Kafka,
    /// Topics against their files, and their replicas.
    Topics,
    /// The schema registry or topic, and what is on it.
    Schemas,
    /// The newest records of the topics that events lie on.
    Records,
    /// The projections' consumer groups.
    Groups,
    /// Hot state.
    Redis,
    /// History.
    Postgres,
    /// The clocks of all hosts.
    Clock,
    /// Free space.
    Disk,
}

impl Area {
    /// All, in the order they are looked at.
    pub const ALL: [Self; 9] = [
        Self::Kafka,
        Self::Topics,
        Self::Schemas,
        Self::Records,
        Self::Groups,
        Self::Redis,
        Self::Postgres,
        Self::Clock,
        Self::Disk,
    ];

    /// As it is typed and printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Topics => "topics",
            Self::Schemas => "schemas",
            Self::Records => "records",
            Self::Groups => "groups",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Clock => "clock",
            Self::Disk => "disk",
        }
    }

    /// The area of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.as_str() == name)
    }

    /// The check for "this could not be looked at".
    #[must_use]
    pub const fn unseen(self) -> Check {
        match self {
            Self::Kafka => Check::KafkaUnseen,
            Self::Topics => Check::TopicsUnseen,
            Self::Schemas => Check::SchemasUnseen,
            Self::Records => Check::RecordsUnseen,
            Self::Groups => Check::GroupsUnseen,
            Self::Redis => Check::RedisUnseen,
            Self::Postgres => Check::PostgresUnseen,
            Self::Clock => Check::ClockUnseen,
            Self::Disk => Check::DiskUnseen,
        }
    }
}

/// Declares the checks: name, area, code, and why it matters.
macro_rules! checks {
    ($($name:ident $area:ident $code:literal $reason:literal)+) => {
        /// Everything that is checked. Codes are stable: scripts and alerts may name them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "a check's reason is its documentation")]
        pub enum Check { $($name),+ }

        impl Check {
            /// All, by area.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code, such as `redis-eviction`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// What it belongs to.
            #[must_use]
            pub const fn area(self) -> Area {
                match self { $(Self::$name => Area::$area),+ }
            }

            /// Why it matters.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason),+ }
            }
        }
    };
}

checks! {
    KafkaReachable Kafka "kafka-reachable" "everything begins at the log: without it nothing is taken in and nothing projected"
    KafkaUnseen Kafka "kafka-unseen" "what cannot be seen cannot be vouched for"
    KafkaVersion Kafka "kafka-version" "a lane tells a topic made anew from the old one by its id, which brokers have since 2.8"
    KafkaBrokers Kafka "kafka-brokers" "a topic has at most as many replicas as there are brokers"
    KafkaAutoCreate Kafka "kafka-auto-create" "a topic misspelled or deleted comes back by itself, with other partitions and settings than its file says"
    KafkaUncleanElection Kafka "kafka-unclean-election" "a replica that lags may become leader of a topic without a setting of its own, and acknowledged events are gone"
    KafkaInternalTopics Kafka "kafka-internal-topics" "offsets and transactions of all groups are gone with one broker; imports and lag tools need them"
    KafkaMessageSize Kafka "kafka-message-size" "an event that one side takes and the other refuses is lost to its sender, or stops a lane"
    TopicsUnseen Topics "topics-unseen" "what cannot be seen cannot be vouched for"
    TopicsAsFiles Topics "topics-as-files" "partitions, retention and timestamps are promises of the topic files"
    TopicsMissing Topics "topics-missing" "nothing can be written to a topic that is not there, and its projections wait"
    TopicsPartitions Topics "topics-partitions" "the order of a key's events hangs on the number of partitions: with another one, old and new events of a unit lie apart"
    TopicsReplication Topics "topics-replication" "with fewer replicas than the file says, events are lost with fewer brokers"
    TopicsMinIsr Topics "topics-min-isr" "`acks=all` waits for the replicas in sync: with too few demanded, one broker's word counts as all; with more than there are, nobody can write"
    TopicsUncleanElection Topics "topics-unclean-election" "a replica that lags may become leader, and acknowledged events are gone"
    TopicsTimestampType Topics "topics-timestamp-type" "events carry the time they were taken in (CreateTime); dead letters and retries the time they were set aside (LogAppendTime), by which they are due and kept"
    TopicsRetention Topics "topics-retention" "a log that is cut or compacted earlier than its file says loses events for good: hot state cannot be folded again"
    TopicsMessageSize Topics "topics-message-size" "an event that the topic refuses is lost to its sender; a dead letter that its topic refuses stops the lane"
    TopicsDurability Topics "topics-durability" "\"nothing acknowledged is lost\" holds with 3 replicas, 2 of them in sync, and unclean election off"
    TopicsLeaders Topics "topics-leaders" "a partition without a leader can be neither read nor written"
    TopicsInSync Topics "topics-in-sync" "replicas that lag do not count: with fewer in sync than demanded nobody can write, and one more fault may lose a partition"
    TopicsIds Topics "topics-ids" "without topic ids a topic made anew is mistaken for the old one"
    SchemasUnseen Schemas "schemas-unseen" "what cannot be seen cannot be vouched for"
    SchemasRegistry Schemas "schemas-registry" "producers wait for the registry before their first event, and readers for each schema they do not know"
    SchemasCoverage Schemas "schemas-coverage" "readers of another version look an event's schema up; what they do not find they set aside"
    SchemasUnknown Schemas "schemas-unknown" "records whose schema nobody can look up are set aside as `unknown_schema`"
    RecordsUnseen Records "records-unseen" "what cannot be seen cannot be vouched for"
    RecordsPartitioner Records "records-partitioner" "a key's events are in order only on one partition: those on another than murmur2 names are set aside as `wrong_partition`"
    RecordsKeys Records "records-keys" "a record without a key belongs to nobody and is set aside as `no_key`"
    RecordsFraming Records "records-framing" "a record that names no schema is set aside as `unknown_framing` or `empty_payload`"
    GroupsUnseen Groups "groups-unseen" "what cannot be seen cannot be vouched for"
    GroupsMembers Groups "groups-members" "a projection that nobody runs falls behind, until retention overtakes it"
    GroupsState Groups "groups-state" "while a group shares out its partitions, nothing is projected"
    GroupsProtocol Groups "groups-protocol" "fleetlog's members share out by `cooperative-sticky`; a group cannot have two ways at a time"
    GroupsForeign Groups "groups-foreign-member" "who joins a projection's group takes partitions away from it, and what lies on them is not projected"
    GroupsUnowned Groups "groups-unowned" "a partition that nobody has is not projected"
    RedisReachable Redis "redis-reachable" "hot state stands still while Redis is away; events wait on the log"
    RedisUnseen Redis "redis-unseen" "what cannot be seen cannot be vouched for"
    RedisVersion Redis "redis-version" "the scripts need commands that older servers do not have"
    RedisMode Redis "redis-mode" "a lane's writes are one chain on one server that takes writes"
    RedisEviction Redis "redis-eviction" "any other policy than `noeviction` drops hot state silently when memory is short; projections refuse to start"
    RedisPersistence Redis "redis-persistence" "what Redis loses when it dies is folded again from the log, and until then readers see older states"
    RedisMemory Redis "redis-memory" "a full Redis refuses writes, and hot state stands still"
    PostgresReachable Postgres "postgres-reachable" "history stands still while PostgreSQL is away; events wait on the log"
    PostgresUnseen Postgres "postgres-unseen" "what cannot be seen cannot be vouched for"
    PostgresVersion Postgres "postgres-version" "partitioned tables as fleetlog needs them came with PostgreSQL 14"
    PostgresEncoding Postgres "postgres-encoding" "names and texts of events are UTF-8"
    PostgresExtension Postgres "postgres-extension" "with TimescaleDB history is compressed and its aggregates are kept ready; without it the same names are plain tables and views"
    PostgresMigrations Postgres "postgres-migrations" "projections refuse to write to tables of another version"
    PostgresWritable Postgres "postgres-writable" "history is written"
    PostgresDurability Postgres "postgres-durability" "a commit that was answered should survive a crash of the server; lanes notice a lost tail and write it again, but damaged files nobody heals"
    PostgresConnections Postgres "postgres-connections" "a projection that gets no connection waits"
    PostgresVacuum Postgres "postgres-vacuum" "without autovacuum tables bloat and, in the end, the server stops taking writes"
    PostgresJobs Postgres "postgres-jobs" "retention, compression and the refresh of aggregates are jobs of TimescaleDB: what they leave undone fills the disk and shows old hours"
    ClockUnseen Clock "clock-unseen" "what cannot be seen cannot be vouched for"
    ClockRedis Clock "clock-redis" "ranks in `seen:{site}` are compared with clocks, and states expire by them"
    ClockPostgres Clock "clock-postgres" "partitions are made ahead, and old ones dropped, by the earlier of the two clocks"
    ClockRecords Clock "clock-records" "retention, lag and `--at` go by the records' times: a clock that is ahead keeps its log too long and makes lag look small"
    DiskUnseen Disk "disk-unseen" "what cannot be seen cannot be vouched for"
    DiskState Disk "disk-state" "a process takes its name by a lock in this folder and cannot start without it"
    DiskRedis Disk "disk-redis" "a Redis that cannot write its files refuses writes"
    DiskPostgres Disk "disk-postgres" "a PostgreSQL without space refuses writes, and may stop"
    DiskKafka Disk "disk-kafka" "a broker whose disk is full stops"
}

impl Check {
    /// A finding of this check.
    #[must_use]
    pub fn finds(self, severity: Severity, found: impl Into<String>) -> Finding {
        let (found, reason) = (found.into(), self.reason().to_owned());
        Finding { check: self, severity, found, reason, action: None, command: None }
    }

    /// As it should be.
    #[must_use]
    pub fn ok(self, found: impl Into<String>) -> Finding {
        self.finds(Severity::Ok, found)
    }

    /// Worth knowing.
    #[must_use]
    pub fn info(self, found: impl Into<String>) -> Finding {
        self.finds(Severity::Info, found)
    }

    /// Not as well as it should be.
    #[must_use]
    pub fn warning(self, found: impl Into<String>) -> Finding {
        self.finds(Severity::Warning, found)
    }

    /// Wrong.
    #[must_use]
    pub fn error(self, found: impl Into<String>) -> Finding {
        self.finds(Severity::Error, found)
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with the value.
    pub found: String,
    /// Why it matters.
    pub reason: String,
    /// What to do about it.
    pub action: Option<String>,
    /// The command that does it, or looks closer.
    pub command: Option<String>,
}

impl Finding {
    /// With a reason of its own instead of the check's.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// With what to do.
    #[must_use]
    pub fn cure(self, action: impl Into<String>) -> Self {
        Self { action: Some(action.into()), ..self }
    }

    /// With the command that does it.
    #[must_use]
    pub fn by(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Finding", 7)?;
        fields.serialize_field("severity", &self.severity)?;
        fields.serialize_field("area", &self.check.area())?;
        fields.serialize_field("code", self.check.code())?;
        fields.serialize_field("found", &self.found)?;
        fields.serialize_field("reason", &self.reason)?;
        fields.serialize_field("action", &self.action)?;
        fields.serialize_field("command", &self.command)?;
        fields.end()
    }
}

/// All that was found, worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// The findings, put into order: worst first, then by area; within those as they were found.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| (finding.severity, finding.check.area()));
        Self { findings }
    }

    /// The findings, worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many of that severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Nothing wrong; `strict` takes warnings for wrong too.
    #[must_use]
    pub fn is_fine(&self, strict: bool) -> bool {
        let worst_allowed = if strict { Severity::Info } else { Severity::Warning };
        self.findings.iter().all(|finding| finding.severity >= worst_allowed)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Report", 5)?;
        fields.serialize_field("errors", &self.count(Severity::Error))?;
        fields.serialize_field("warnings", &self.count(Severity::Warning))?;
        fields.serialize_field("infos", &self.count(Severity::Info))?;
        fields.serialize_field("oks", &self.count(Severity::Ok))?;
        fields.serialize_field("findings", &self.findings)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_begin_with_their_area() {
        let codes: BTreeSet<&str> = Check::ALL.iter().map(|check| check.code()).collect();
        assert_eq!(codes.len(), Check::ALL.len());
        for check in Check::ALL {
            assert!(check.code().starts_with(&format!("{}-", check.area().as_str())), "{}", check.code());
        }
        for area in Area::ALL {
            assert_eq!(area.unseen().area(), area);
            assert_eq!(Area::parse(area.as_str()), Some(area));
        }
    }

    #[test]
    fn the_worst_comes_first_and_decides() {
        let report = Report::new(vec![
            Check::RedisVersion.ok("7.0"),
            Check::RedisEviction.error("evicts"),
            Check::KafkaReachable.error("away"),
            Check::RedisPersistence.warning("none"),
        ]);
        let codes: Vec<&str> = report.findings().iter().map(|finding| finding.check.code()).collect();
        assert_eq!(codes, ["kafka-reachable", "redis-eviction", "redis-persistence", "redis-version"]);
        assert!(!report.is_fine(false));
        let warned = Report::new(vec![Check::RedisPersistence.warning("none"), Check::ClockRedis.info("?")]);
        assert!(warned.is_fine(false) && !warned.is_fine(true));
        assert!(Report::new(vec![Check::ClockRedis.info("?")]).is_fine(true));
    }

    #[test]
    fn a_finding_as_json_names_its_code_and_cure() {
        let finding =
            Check::TopicsMissing.error("task is not there").cure("create it").by("fleetlog topics apply");
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["severity"], "error");
        assert_eq!((json["area"].as_str(), json["code"].as_str()), (Some("topics"), Some("topics-missing")));
        assert_eq!(json["command"], "fleetlog topics apply");
        assert_eq!(serde_json::to_value(Report::new(vec![finding])).unwrap()["errors"], 1);
    }
}
