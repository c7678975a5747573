//! The lanes of the fleet, as commands find them: [`Lanes`] over the stores and projections of this binary.

use std::{collections::BTreeMap, sync::Arc};

use fleetlog_codec::Decoder;
use fleetlog_dead_letters::redrive::{HandlerGroup, LaneRef, Lanes, Reader, Rehearsal, Trouble};
use fleetlog_engine::{KafkaLogs, Rehearsing};
use fleetlog_event::{
    EntityKey, LogId,
    catalogue::{Catalogue, held_name, is_of_dead_letters, physical_name},
};
use fleetlog_kafka::Admin;
use fleetlog_projection::{
    EntityRow, Fault, Fold, FoldProjector, LaneId, LedgerEntry, Map, Progress, Projection, Record, Sink,
    SinkError, Version, inbox_name,
};
use fleetlog_projections::{Described, SinkKind, event_history::EventRow, for_each_projection};
use fleetlog_sink_redis::RedisSink;
use fleetlog_sink_timescale::{Database, SqlSink};

use crate::{config::Config, handlers, lanes, wiring};

/// Every group of the fleet with each topic that it reads, and the group's inbox for it. What lies on a dead-letter topic is
/// never set aside, so there is nothing to command.
pub(crate) fn readers(config: &Config) -> Vec<Reader> {
    let mut readers = Vec::new();
    for projection in fleetlog_projections::all() {
        let group = wiring::group(config, &projection);
        let topics = projection.topics.iter().filter(|stem| !is_of_dead_letters(stem));
        readers.extend(topics.map(|stem| Reader {
            group: group.clone(),
            topic: physical_name(&config.kafka.topic_prefix, stem),
            inbox: inbox_name(&group, stem),
        }));
    }
    readers
}

/// Every handler of the settings, as its letters find it.
fn handler_groups(config: &Config) -> anyhow::Result<Vec<HandlerGroup>> {
    let group = |handler: handlers::Described| HandlerGroup {
        topics: handler.topics.iter().map(|stem| physical_name(&config.kafka.topic_prefix, stem)).collect(),
        held: held_name(&handler.group),
        group: handler.group,
    };
    Ok(handlers::all(config)?.into_iter().map(group).collect())
}

/// The lanes of every projection; connects when it is used.
pub(crate) struct FleetLanes {
    readers: Vec<Reader>,
    handlers: Vec<HandlerGroup>,
    by_group: BTreeMap<String, Described>,
    hot: RedisSink,
    history: SqlSink<EventRow>,
    database: Database,
    admin: Admin,
    logs: KafkaLogs,
    decoder: Arc<Decoder>,
    dedup_spans: BTreeMap<String, i64>,
}

impl FleetLanes {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let kafka = wiring::kafka_settings(config);
        let projections = fleetlog_projections::all().into_iter();
        let catalogue = Catalogue::builtin();
        let spans = catalogue
            .sources()
            .filter_map(|topic| Some((kafka.topic(&topic.stem), topic.dedup_window_offsets?)))
            .collect();
        Ok(Self {
            readers: readers(config),
            handlers: handler_groups(config)?,
            by_group: projections.map(|described| (wiring::group(config, &described), described)).collect(),
            hot: wiring::redis_sink(config)?,
            history: wiring::history_sink(config)?,
            database: wiring::database(config)?,
            admin: Admin::new(&kafka)?,
            logs: KafkaLogs::new(&kafka)?,
            decoder: wiring::decoder(config)?,
            dedup_spans: spans,
        })
    }

    /// The name of the projection whose group it is.
    pub(crate) fn projection(&self, group: &str) -> &'static str {
        self.by_group.get(group).map_or("unknown", |described| described.id)
    }

    fn find(&self, lane: &LaneRef) -> Result<(&Described, LaneId), Trouble> {
        let described = self.by_group.get(&lane.group).ok_or_else(|| Trouble {
            fault: Fault::Permanent,
            what: format!("group `{}` is no projection of this fleet", lane.group),
        })?;
        Ok((described, lanes::lane_id(described, &lane.topic, lane.partition)))
    }

    async fn rehearsed<P, S>(
        &self,
        projection: &P,
        sink: &S,
        lane: &LaneId,
        records: Vec<Record>,
    ) -> Result<Rehearsal, Trouble>
    where
        P: Projection,
        S: Sink<Write = P::Write>,
    {
        let rehearsing = Rehearsing {
            projection,
            sink,
            schemas: &*self.decoder,
            logs: &self.logs,
            lane,
            dedup_span_offsets: self.dedup_spans.get(&lane.topic).copied().unwrap_or(0),
        };
        let rehearsed = rehearsing.of(records).await;
        let rehearsed =
            rehearsed.map_err(|failure| Trouble { fault: failure.fault, what: failure.to_string() })?;
        Ok(Rehearsal { outcomes: rehearsed.outcomes, also_rejected: rehearsed.also_rejected })
    }
}

/// Where a fold keeps entities, if it is the one that is meant.
fn homes<P: FoldProjector>(projector: &P, described: &Described, keys: &[EntityKey]) -> Option<Vec<String>> {
    (P::ID == described.id).then(|| keys.iter().map(|key| projector.home(key)).collect())
}

fn ledger_of<P: FoldProjector<Write: EntityRow>>(_: &P, database: &Database) -> SqlSink<P::Write> {
    database.fold_sink()
}

async fn versions(
    sink: &impl Sink,
    lane: &LaneId,
    homes: &[String],
) -> Result<Vec<Option<Version>>, Trouble> {
    let stored = sink.read(lane, homes).await.map_err(trouble)?;
    Ok(stored.states.into_iter().map(|state| state.map(|state| state.version)).collect())
}

fn trouble(error: SinkError) -> Trouble {
    Trouble { fault: error.fault, what: error.to_string() }
}

impl Lanes for FleetLanes {
    fn readers(&self) -> &[Reader] {
        &self.readers
    }

    fn handlers(&self) -> &[HandlerGroup] {
        &self.handlers
    }

    async fn progress(&self, lane: &LaneRef) -> Result<Option<Progress>, Trouble> {
        let (described, id) = self.find(lane)?;
        let stored = match described.sink {
            SinkKind::Hot => self.hot.read(&id, &[]).await,
            SinkKind::History => self.history.read(&id, &[]).await,
        };
        Ok(stored.map_err(trouble)?.progress)
    }

    async fn entries(
        &self,
        lane: &LaneRef,
        log: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, Trouble> {
        let (described, id) = self.find(lane)?;
        let entries = match described.sink {
            SinkKind::Hot => self.hot.entries(&id, log, offsets).await,
            SinkKind::History => self.history.entries(&id, log, offsets).await,
        };
        entries.map_err(trouble)
    }

    async fn versions(&self, lane: &LaneRef, keys: &[EntityKey]) -> Result<Vec<Option<Version>>, Trouble> {
        let (described, id) = self.find(lane)?;
        macro_rules! read {
            (fold, $projector:expr) => {
                if let Some(homes) = homes(&$projector, described, keys) {
                    return versions(&self.hot, &id, &homes).await;
                }
            };
            (ledger, $projector:expr) => {
                if let Some(homes) = homes(&$projector, described, keys) {
                    return versions(&ledger_of(&$projector, &self.database), &id, &homes).await;
                }
            };
            (map, $projector:expr) => {};
            (letters, $projector:expr) => {};
        }
        for_each_projection!(read);
        let what = format!("`{}` folds nothing", described.id);
        Err(Trouble { fault: Fault::Permanent, what })
    }

    async fn members(&self, group: &str) -> Result<usize, Trouble> {
        Ok(self.admin.group(group).await?.members.len())
    }

    async fn rehearse(&self, lane: &LaneRef, records: Vec<Record>) -> Result<Rehearsal, Trouble> {
        let (described, id) = self.find(lane)?;
        macro_rules! try_on {
            (fold, $projector:expr) => {
                let fold = Fold::new($projector);
                if fold.id() == described.id {
                    return self.rehearsed(&fold, &self.hot, &id, records).await;
                }
            };
            (ledger, $projector:expr) => {
                let fold = Fold::new($projector);
                if fold.id() == described.id {
                    return self.rehearsed(&fold, &self.database.fold_sink(), &id, records).await;
                }
            };
            (map, $projector:expr) => {
                let map = Map($projector);
                if map.id() == described.id {
                    return self.rehearsed(&map, &self.database.sink(), &id, records).await;
                }
            };
            (letters, $projector:expr) => {};
        }
        for_each_projection!(try_on);
        Err(Trouble { fault: Fault::Permanent, what: format!("there is no projection `{}`", described.id) })
    }
}
