//! What the stores hold of a projection's lanes, and how far the log is ahead of them.

use anyhow::Context;
use fleetlog_event::{LogId, catalogue::physical_name};
use fleetlog_kafka::{Admin, ClusterError, Offsets, PartitionOffsets};
use fleetlog_projection::{Fault, LaneId, Sink, SinkError, Stored};
use fleetlog_projections::{Described, SinkKind, event_history::EventRow};
use fleetlog_sink_redis::RedisSink;
use fleetlog_sink_timescale::SqlSink;

use crate::{
    config::{self, Config},
    exit::{Code, Failure},
    wiring,
};

/// A lane as stored, beside its part of the log.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    /// The topic's id as it is now.
    pub(crate) log_id: LogId,
    pub(crate) log: PartitionOffsets,
    pub(crate) stored: Stored,
}

impl Lane {
    /// Offsets between progress and the stable end of the log.
    pub(crate) fn lag(&self) -> i64 {
        let next = self.stored.progress.map_or(self.log.low, |progress| progress.main);
        (self.log.end - next).max(0)
    }
}

/// The projections of these names, or all.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<Described>> {
    let all = fleetlog_projections::all();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|known| known.id == name.as_str())) {
        let known: Vec<&str> = all.iter().map(|known| known.id).collect();
        let message = format!("there is no projection `{unknown}`");
        return Err(Failure::new(Code::Usage, message, format!("projections: {}", known.join(", "))).into());
    }
    Ok(all
        .into_iter()
        .filter(|known| names.is_empty() || names.iter().any(|name| name == known.id))
        .collect())
}

/// Every lane of a projection. Progress is read before the ends of the log, so that lag is never too small to be true
/// by less than what came in between.
pub(crate) async fn read(config: &Config, projection: &Described) -> anyhow::Result<Vec<Lane>> {
    let offsets = Offsets::new(&wiring::kafka_settings(config))?;
    let admin = Admin::new(&wiring::kafka_settings(config))?;
    let store = Store::of(config, projection)?;
    let mut lanes = Vec::new();
    for stem in projection.topics {
        let topic = physical_name(&config.kafka.topic_prefix, stem);
        let partitions =
            offsets.ranges(&[&topic]).await.map_err(|error| unknown_topic(error, projection.id))?;
        let mut stored = Vec::new();
        for (_, partition) in partitions.keys() {
            let id = lane_id(projection, &topic, *partition);
            let read = store.read(&id).await.map_err(|error| unreachable(config, projection, error))?;
            stored.push((id, read));
        }
        let ends = offsets.ranges(&[&topic]).await?;
        let log_id = admin.topic_ids(&[&topic]).await?.remove(&topic).context("a topic vanished")?;
        for (id, stored) in stored {
            let log = *ends.get(&(topic.clone(), id.partition)).context("a partition vanished")?;
            lanes.push(Lane { id, log_id, log, stored });
        }
    }
    Ok(lanes)
}

/// Where a projection's lanes are stored; one connection for all of them.
#[expect(clippy::large_enum_variant, reason = "one a projection")]
enum Store {
    Hot(RedisSink),
    History(SqlSink<EventRow>),
}

impl Store {
    fn of(config: &Config, projection: &Described) -> anyhow::Result<Self> {
        Ok(match projection.sink {
            SinkKind::Hot => Self::Hot(wiring::redis_sink(config)?),
            SinkKind::History => Self::History(wiring::history_sink(config)?),
        })
    }

    async fn read(&self, lane: &LaneId) -> Result<Stored, SinkError> {
        match self {
            Self::Hot(sink) => sink.read(lane, &[]).await,
            Self::History(sink) => sink.read(lane, &[]).await,
        }
    }
}

/// The lane of a partition.
pub(crate) fn lane_id(projection: &Described, topic: &str, partition: i32) -> LaneId {
    LaneId {
        projection: projection.id.to_owned(),
        version: projection.version,
        topic: topic.to_owned(),
        partition,
    }
}

fn unknown_topic(error: ClusterError, projection: &str) -> anyhow::Error {
    match error {
        ClusterError::UnknownTopic(_) => {
            Failure::new(Code::Found, format!("projection `{projection}`: {error}"), "fleetlog topics apply")
                .into()
        }
        other => other.into(),
    }
}

/// A store that does not answer, in words to act on.
pub(crate) fn unreachable(config: &Config, projection: &Described, error: SinkError) -> anyhow::Error {
    if error.fault != Fault::Transient {
        return error.into();
    }
    let (store, url) = match projection.sink {
        SinkKind::Hot => ("redis.url", &config.redis.url),
        SinkKind::History => ("postgres.url", &config.postgres.url),
    };
    let message = format!("{}: {error}", config::redact_url(url));
    Failure::new(Code::Unreachable, message, format!("is it running, and is {store} right?")).into()
}
